package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const maxVerificationFile = 64 << 10

// VerificationFiles reads the files with which WeChat verifies that a domain
// is ours (it fetches https://domain/NAME.txt) and answers a handler for each
// by its path, "/NAME.txt". Names are [A-Za-z0-9_.-]+\.txt, files at most
// 64 KiB. The error names every file that cannot be used.
func VerificationFiles(files []string) (map[string]http.Handler, error) {
	handlers := make(map[string]http.Handler, len(files))
	var problems []error
	for _, file := range files {
		name := filepath.Base(file)
		content, err := readVerification(file, name)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("verification file %q: %w", file, err))
		case handlers["/"+name] != nil:
			problems = append(problems, fmt.Errorf("verification file %q: there are two with this name", file))
		default:
			handlers["/"+name] = verificationFile(content)
		}
	}
	return handlers, errors.Join(problems...)
}

func readVerification(file, name string) ([]byte, error) {
	stem, ok := strings.CutSuffix(name, ".txt")
	if !ok || stem == "" || strings.ContainsFunc(stem, func(c rune) bool { return c > 127 || !isNameByte(byte(c)) }) {
		return nil, errors.New("the name must be letters, digits and _ . - and end in .txt")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	content, err := io.ReadAll(io.LimitReader(f, maxVerificationFile+1))
	if err == nil && len(content) > maxVerificationFile {
		err = errors.New("it is larger than 64 KiB")
	}
	return content, err
}

func verificationFile(content []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}
