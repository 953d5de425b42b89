// Package clamd has the daemon of ClamAV look at bytes. It speaks INSTREAM of
// its protocol, as in the manual page clamd(8).
package clamd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	chunkSize = 128 << 10 // bytes
	maxReply  = 4 << 10   // bytes
)

var (
	// ErrSize is that of more bytes than the daemon takes (its StreamMaxLength).
	ErrSize = errors.New("clamd takes no file as large as this")
	// ErrReply is that of an answer that is no verdict.
	ErrReply = errors.New("clamd gave no verdict")
)

// Daemon is where a clamd listens.
type Daemon struct{ Network, Address string }

// At reads an address: "unix:" and a path, or host:port.
func At(address string) (d Daemon, ok bool) {
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		return Daemon{"unix", path}, path != ""
	}
	host, port, err := net.SplitHostPort(address)
	return Daemon{"tcp", address}, err == nil && host != "" && port != ""
}

// Scan returns the name of the signature that was found in what r has, "" for
// none. The end of ctx ends it.
func (d Daemon) Scan(ctx context.Context, r io.Reader) (found string, err error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, d.Network, d.Address)
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // breaks off what waits
	defer func() {
		stop()
		_ = conn.Close() // what matters has been read
	}()
	source := &reader{r: r}
	sent := send(conn, source)
	if source.err != nil {
		return "", source.err
	}
	// A daemon that had enough has said why, and then hung up.
	reply, err := readReply(conn)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", errors.Join(sent, err)
	}
	return parseReply(reply)
}

// reader remembers which side failed.
type reader struct {
	r   io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// send writes the command and chunks with their length in front, the last of
// which is empty.
func send(w io.Writer, r io.Reader) error {
	if _, err := io.WriteString(w, "zINSTREAM\x00"); err != nil {
		return err
	}
	chunk := make([]byte, 4+chunkSize)
	for {
		n, err := io.ReadFull(r, chunk[4:])
		if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		last := err != nil
		if n > 0 {
			binary.BigEndian.PutUint32(chunk, uint32(n))
			if _, err := w.Write(chunk[:4+n]); err != nil {
				return err
			}
		}
		if last {
			_, err := w.Write(make([]byte, 4))
			return err
		}
	}
}

func readReply(conn net.Conn) (string, error) {
	reply, err := bufio.NewReader(io.LimitReader(conn, maxReply)).ReadString(0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrReply, err)
	}
	return strings.TrimSuffix(reply, "\x00"), nil
}

// parseReply reads what clamd says of a stream.
func parseReply(reply string) (found string, err error) {
	switch text, ours := strings.CutPrefix(strings.TrimSpace(reply), "stream: "); {
	case ours && text == "OK":
		return "", nil
	case ours && strings.HasSuffix(text, " FOUND"):
		if name := strings.TrimSpace(strings.TrimSuffix(text, " FOUND")); name != "" {
			return name, nil
		}
	case strings.HasPrefix(text, "INSTREAM size limit exceeded"):
		return "", ErrSize
	}
	return "", fmt.Errorf("%w: %.100q", ErrReply, reply)
}
