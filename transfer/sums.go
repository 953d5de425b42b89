package transfer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strings"

	"github.com/minigate/minigate/internal/fault"
)

var (
	errSumParam = fault.New(fault.Invalid, "sha256_invalid", "sha256 must be 64 hexadecimal digits, or the same 32 bytes in base64.")
	errCRCParam = fault.New(fault.Invalid, "crc32c_invalid", "crc32c must be 8 hexadecimal digits, or the same 4 bytes in base64.")
	errDigest   = fault.New(fault.Invalid, "digest_invalid", "The header Content-Digest must look like sha-256=:BASE64:.")
	errSum      = fault.New(fault.Invalid, "checksum_mismatch", "The bytes do not have the checksum that was announced.")
)

// Sums are checksums of bytes, in lower case hexadecimal; "" where there is
// none. CRC32C is CRC-32 with the Castagnoli polynomial (RFC 3720), the most
// significant byte first.
type Sums struct{ SHA256, CRC32C string }

// ParseSums reads checksums in hexadecimal or base64. Faults: Invalid
// `sha256_invalid`, `crc32c_invalid`.
func ParseSums(sha256Sum, crc32c string) (Sums, error) {
	var s Sums
	var ok bool
	if s.SHA256, ok = parseSum(sha256Sum, sha256.Size); !ok {
		return Sums{}, errSumParam
	}
	if s.CRC32C, ok = parseSum(crc32c, crc32.Size); !ok {
		return Sums{}, errCRCParam
	}
	return s, nil
}

// parseSum reads size bytes. Hexadecimal has twice as many digits, which
// base64 never has.
func parseSum(text string, size int) (string, bool) {
	if text == "" {
		return "", true
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != size {
		raw, err = base64.StdEncoding.Strict().DecodeString(text)
	}
	return hex.EncodeToString(raw), err == nil && len(raw) == size
}

// sumsOfHeader reads the checksums that a request has for its body: of
// Content-Digest (RFC 9530), where algorithms that we do not know are passed
// over, and of X-Checksum-Sha256 and X-Checksum-Crc32c.
func sumsOfHeader(h http.Header) (Sums, error) {
	sums, err := ParseSums(h.Get("X-Checksum-Sha256"), h.Get("X-Checksum-Crc32c"))
	if err != nil {
		return Sums{}, err
	}
	digest, err := parseDigest(strings.Join(h.Values("Content-Digest"), ","))
	if err != nil {
		return Sums{}, err
	}
	return sums.and(digest)
}

// parseDigest reads a Content-Digest field: a dictionary of byte sequences
// (RFC 8941), whose last member of a name counts.
func parseDigest(field string) (s Sums, err error) {
	if strings.Trim(field, " \t,") == "" {
		return s, nil
	}
	for member := range strings.SplitSeq(field, ",") {
		name, value, _ := strings.Cut(strings.Trim(member, " \t"), "=")
		value, _, _ = strings.Cut(value, ";") // parameters
		value = strings.Trim(value, " ")
		if len(value) < 2 || value[0] != ':' || value[len(value)-1] != ':' || name == "" {
			return Sums{}, errDigest
		}
		switch raw, err := base64.StdEncoding.Strict().DecodeString(value[1 : len(value)-1]); {
		case err != nil:
			return Sums{}, errDigest.Because(err)
		case name == "sha-256" && len(raw) == sha256.Size:
			s.SHA256 = hex.EncodeToString(raw)
		case name == "crc32c" && len(raw) == crc32.Size:
			s.CRC32C = hex.EncodeToString(raw)
		case name == "sha-256", name == "crc32c":
			return Sums{}, errDigest
		}
	}
	return s, nil
}

// and joins what was announced in two places. Bytes cannot have two sums.
func (s Sums) and(t Sums) (Sums, error) {
	for _, sum := range [][2]*string{{&s.SHA256, &t.SHA256}, {&s.CRC32C, &t.CRC32C}} {
		switch mine, other := sum[0], *sum[1]; {
		case *mine == "":
			*mine = other
		case other != "" && other != *mine:
			return Sums{}, errSum
		}
	}
	return s, nil
}

// with is and, of sums that are still to be read.
func (s Sums) with(sha256Sum, crc32c string) (Sums, error) {
	t, err := ParseSums(sha256Sum, crc32c)
	if err != nil {
		return Sums{}, err
	}
	return s.and(t)
}

// none tells whether there is nothing to check.
func (s Sums) none() bool { return s == Sums{} }

// check compares sums of bytes with those that were announced.
func (s Sums) check(got Sums) error {
	if s.SHA256 != "" && s.SHA256 != got.SHA256 || s.CRC32C != "" && s.CRC32C != got.CRC32C {
		return errSum
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// summer sums up bytes: those sums that want has.
type summer struct {
	want        Sums
	sha256, crc hash.Hash // nil where not wanted
}

func newSummer(want Sums) *summer {
	s := &summer{want: want}
	if want.SHA256 != "" {
		s.sha256 = sha256.New()
	}
	if want.CRC32C != "" {
		s.crc = crc32.New(castagnoli)
	}
	return s
}

// Write implements io.Writer; it never fails.
func (s *summer) Write(p []byte) (int, error) {
	if s.sha256 != nil {
		_, _ = s.sha256.Write(p) // never fails
	}
	if s.crc != nil {
		_, _ = s.crc.Write(p) // never fails
	}
	return len(p), nil
}

// sums are those of all that was written.
func (s *summer) sums() (got Sums) {
	if s.sha256 != nil {
		got.SHA256 = hex.EncodeToString(s.sha256.Sum(nil))
	}
	if s.crc != nil {
		got.CRC32C = hex.EncodeToString(s.crc.Sum(nil))
	}
	return got
}

// checked passes r on, and ends with errSum instead of io.EOF where its bytes
// do not have the sums.
func checked(r io.Reader, want Sums) io.Reader {
	if want.none() {
		return r
	}
	return &checkedReader{r, newSummer(want)}
}

type checkedReader struct {
	r   io.Reader
	sum *summer
}

// Read implements io.Reader.
func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	_, _ = c.sum.Write(p[:n]) // never fails
	if err == io.EOF {
		if bad := c.sum.want.check(c.sum.sums()); bad != nil {
			err = bad
		}
	}
	return n, err
}
