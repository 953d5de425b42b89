package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"

	"github.com/minigate/minigate/transfer"
)

// tus sends one request of tus 1.0.
func (k *killing) tus(method, path string, body []byte, status int, header ...string) (http.Header, error) {
	req := newRequest(method, k.node.Public+path, k.token, bytes.NewReader(body))
	req.Header.Set("Tus-Resumable", "1.0.0")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != status {
		err = fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, raw)
	}
	return res.Header, err
}

// sendTus sends data in pieces that are no parts.
func (k *killing) sendTus(data []byte) (string, error) {
	h, err := k.tus("POST", transfer.TusPath, nil, http.StatusCreated, "Upload-Length", strconv.Itoa(len(data)))
	if err != nil {
		return "", err
	}
	id := transfer.TusUpload(h.Get("Location"))
	k.remember(id, data, k.resumeTus)
	return id, k.resumeTus(id, data)
}

func (k *killing) resumeTus(id string, data []byte) error {
	path := transfer.TusPath + id
	h, err := k.tus("HEAD", path, nil, http.StatusOK)
	if err != nil {
		return err
	}
	at, err := strconv.Atoi(h.Get("Upload-Offset"))
	for err == nil && at < len(data) {
		piece := data[at:min(len(data), at+1+rand.IntN(killPart))]
		_, err = k.tus("PATCH", path, piece, http.StatusNoContent, "Upload-Offset", strconv.Itoa(at), "Content-Type", "application/offset+octet-stream")
		at += len(piece)
	}
	return err
}

// sendChunks sends data as miniprogram-file-uploader does, which sends no empty
// files, and goes on with what it sent before. It learns the id of a file only
// in the end.
func (k *killing) sendChunks(data []byte) (id string, err error) {
	if len(data) == 0 {
		return k.sendForm(data)
	}
	defer func() {
		if err != nil {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.half = append(k.half, data)
		}
	}()
	sum := sha256.Sum256(data)
	what := "fileName=a.bin&identifier=" + hex.EncodeToString(sum[:])
	var there struct {
		NeedUpload     bool
		UploadedChunks []int
		fileAnswer
	}
	if err := k.do("GET", "/files/uploader/verify?"+what, "", nil, http.StatusOK, &there); err != nil || !there.NeedUpload {
		return there.ID, err
	}
	chunks := (len(data) + killPart - 1) / killPart
	for i := range chunks {
		if slices.Contains(there.UploadedChunks, i) {
			continue
		}
		piece := data[i*killPart : min((i+1)*killPart, len(data))]
		path := fmt.Sprintf("/files/uploader/chunk?%s&index=%d&chunkSize=%d&totalChunks=%d&totalSize=%d", what, i, len(piece), chunks, len(data))
		if err := k.do("POST", path, "application/octet-stream", piece, http.StatusOK, &struct{}{}); err != nil {
			return "", err
		}
	}
	var f fileAnswer
	err = k.do("GET", "/files/uploader/merge?"+what, "", nil, http.StatusOK, &f)
	return f.ID, err
}
