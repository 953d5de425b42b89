package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

const (
	presigned  = "presigned PUT to MinIO"
	tusdS3     = "tusd, s3store"
	tusS3      = "minigate, tus, S3"
	formS3     = "minigate, form, S3"
	partsS3    = "minigate, parts, S3"
	plainCopy  = "HTTP server, copy and sync"
	formFolder = "minigate, form, folder"
	tusFolder  = "minigate, tus, folder"
)

// call sends one request; the answer has to have this status.
func call(ctx context.Context, method, url, token string, body []byte, status int, header ...string) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }() // only read
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != status {
		err = fmt.Errorf("%s %s: %d %.200s", method, req.URL.Path, res.StatusCode, text)
	}
	return res.Header, text, err
}

// tus uploads in one PATCH.
func tus(endpoint, token string) func(ctx context.Context, data []byte) error {
	return func(ctx context.Context, data []byte) error {
		h, _, err := call(ctx, "POST", endpoint, token, nil, http.StatusCreated, "Tus-Resumable", "1.0.0", "Upload-Length", strconv.Itoa(len(data)))
		if err != nil {
			return err
		}
		base, err := url.Parse(endpoint)
		if err != nil {
			return err
		}
		at, err := base.Parse(h.Get("Location"))
		if err != nil {
			return err
		}
		h, _, err = call(ctx, "PATCH", at.String(), token, data, http.StatusNoContent,
			"Tus-Resumable", "1.0.0", "Upload-Offset", "0", "Content-Type", "application/offset+octet-stream")
		if err == nil && h.Get("Upload-Offset") != strconv.Itoa(len(data)) {
			err = fmt.Errorf("the upload is at %s", h.Get("Upload-Offset"))
		}
		return err
	}
}

// form uploads as wx.uploadFile does.
func form(base, token string) func(ctx context.Context, data []byte) error {
	return func(ctx context.Context, data []byte) error {
		body := append([]byte("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n"), data...)
		body = append(body, "\r\n--b--\r\n"...)
		_, text, err := call(ctx, "POST", base+"/files?size="+strconv.Itoa(len(data)), token, body, http.StatusCreated, "Content-Type", "multipart/form-data; boundary=b")
		return whole(text, data, err)
	}
}

// parts uploads one part after the other.
func parts(base, token string) func(ctx context.Context, data []byte) error {
	return func(ctx context.Context, data []byte) error {
		_, text, err := call(ctx, "POST", base+"/files/uploads", token, fmt.Appendf(nil, `{"size":%d}`, len(data)), http.StatusCreated, "Content-Type", "application/json")
		if err != nil {
			return err
		}
		var u struct {
			ID       string
			PartSize int `json:"part_size"`
		}
		if err := json.Unmarshal(text, &u); err != nil {
			return err
		}
		for n := 0; n*u.PartSize < len(data); n++ {
			piece := data[n*u.PartSize : min((n+1)*u.PartSize, len(data))]
			if _, _, err := call(ctx, "PUT", fmt.Sprintf("%s/files/uploads/%s/parts/%d", base, u.ID, n+1), token, piece, http.StatusOK); err != nil {
				return err
			}
		}
		_, text, err = call(ctx, "POST", base+"/files/uploads/"+u.ID+"/complete", token, nil, http.StatusCreated)
		return whole(text, data, err)
	}
}

// whole checks the answer to an upload.
func whole(text, data []byte, err error) error {
	var f struct{ Size int }
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err == nil && f.Size != len(data) {
		err = fmt.Errorf("%d bytes of %d were taken", f.Size, len(data))
	}
	return err
}
