package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// setScalar reads text into v and says what is wrong with it, "" if nothing.
// The problem quotes the text, except where v is a Secret.
func setScalar(v reflect.Value, text string) (problem string) {
	switch v.Type() {
	case secretType:
		return setSecret(v, text)
	case sizeType:
		n, err := ParseSize(text)
		return set(v.SetInt, int64(n), err, ErrSize.Error(), text)
	case durationType:
		d, err := time.ParseDuration(text)
		if err == nil && d < 0 {
			err = strconv.ErrRange
		}
		return set(v.SetInt, int64(d), err, `must be a duration such as "25s" or "1h30m"`, text)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return ""
	case reflect.Bool:
		if text != "true" && text != "false" {
			return "must be true or false, not " + quote(text)
		}
		v.SetBool(text == "true")
		return ""
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
			err = strconv.ErrSyntax
		}
		return set(v.SetFloat, f, err, "must be a number", text)
	default:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		return set(v.SetInt, n, err, "must be a whole number", text)
	}
}

func set[T any](setter func(T), value T, err error, must, text string) (problem string) {
	switch {
	case errors.Is(err, strconv.ErrRange):
		return quote(text) + " is out of range"
	case err != nil:
		return must + ", not " + quote(text)
	}
	setter(value)
	return ""
}

// quote shows at most 40 characters of what somebody wrote.
func quote(text string) string {
	if r := []rune(text); len(r) > 40 {
		text = string(r[:40]) + "…"
	}
	return strconv.Quote(text)
}

const maxSecretFile = 64 << 10

// setSecret takes text as the secret, or as "file:" and the path of the file
// that holds it. No problem repeats any of the text.
func setSecret(v reflect.Value, text string) (problem string) {
	if text == mask {
		return "is the mask that stands for a secret, not the secret"
	}
	path, ok := strings.CutPrefix(text, "file:")
	if !ok {
		v.SetString(text)
		return ""
	}
	content, err := readSecret(path)
	if err != nil {
		return "names a file that cannot be used: " + err.Error()
	}
	v.SetString(content)
	return ""
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", withoutPath(err)
	}
	defer func() { _ = f.Close() }() // only read
	content, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", withoutPath(err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	switch {
	case len(content) > maxSecretFile:
		return "", fmt.Errorf("it is larger than %s", Size(maxSecretFile))
	case secret == "":
		return "", errors.New("it is empty")
	}
	return secret, nil
}

func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// scalarText is v as setScalar reads it; secrets are masked.
func scalarText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case Secret:
		return x.String()
	case Size:
		return x.String()
	case time.Duration:
		return durationText(x)
	}
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	default:
		return strconv.FormatInt(v.Int(), 10)
	}
}

// durationText is d without units that are zero: "1h" and not "1h0m0s".
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
