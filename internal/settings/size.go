package settings

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written as "1024", "64KiB" (1024-based: KiB,
// MiB, GiB, TiB) or "5MB" (1000-based: KB, MB, GB, TB). Units may be written
// in any case. It is never negative.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"TB", 1e12},
	{"GiB", 1 << 30},
	{"GB", 1e9},
	{"MiB", 1 << 20},
	{"MB", 1e6},
	{"KiB", 1 << 10},
	{"KB", 1e3},
	{"B", 1},
}

// ErrSize is what ParseSize answers for anything that is no Size.
var ErrSize = errors.New(`must be a size in bytes such as "1024", "64KiB" or "5MB"`)

// ParseSize reads a Size. A space may stand before the unit; fractions, signs
// and sizes above math.MaxInt64 are refused with ErrSize.
func ParseSize(s string) (Size, error) {
	digits := strings.TrimRight(s, "BKMGTibkmgtI")
	unit, factor := s[len(digits):], int64(1)
	if unit != "" {
		factor = 0
		for _, u := range sizeUnits {
			if strings.EqualFold(unit, u.name) {
				factor = u.bytes
			}
		}
		digits = strings.TrimSuffix(digits, " ")
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || factor == 0 || int64(n) > math.MaxInt64/factor {
		return 0, ErrSize
	}
	return Size(int64(n) * factor), nil
}

// String writes s in the largest unit that divides it, so that ParseSize
// reads back the same number.
func (s Size) String() string {
	if s > 0 {
		for _, u := range sizeUnits[:len(sizeUnits)-1] {
			if int64(s)%u.bytes == 0 {
				return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
			}
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText writes s as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads s as ParseSize does.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := ParseSize(string(text))
	if err == nil {
		*s = n
	}
	return err
}
