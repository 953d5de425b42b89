package transfer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/minigate/minigate/internal/fault"
)

// MaxParts is the highest number that a part may have; S3 takes no more.
const MaxParts = maxParts

// Part is a part of an object that is uploaded in parts, as a Store has it.
type Part struct {
	N    int    // 1 to MaxParts
	Size int64  // bytes
	Tag  string // the Store's name for these bytes: another after the part was replaced
}

// Faults of uploads in parts that both stores give.
var (
	errNoUpload   = fault.New(fault.NotFound, "upload_not_found", "There is no such upload, or it has expired.")
	errPartNumber = fault.Newf(fault.Invalid, "part_invalid", "The number of a part is between 1 and %d.", MaxParts)
	errPartSize   = fault.New(fault.Invalid, "part_size_invalid", "Every part but the last must have the size that the upload's parts have.")
	errParts      = fault.New(fault.Conflict, "parts_changed", "Parts of this upload have changed: look at what is there and complete it again.")
)

func checkPartNumber(n int) error {
	if n < 1 || n > MaxParts {
		return errPartNumber
	}
	return nil
}

// sizeOf sums up parts. They have to be numbered from 1 on.
func sizeOf(parts []Part) (size int64, err error) {
	for i, p := range parts {
		if p.N != i+1 {
			return 0, errParts.Because(fmt.Errorf("part %d in the place of %d", p.N, i+1))
		}
		size += p.Size
	}
	if len(parts) == 0 || len(parts) > MaxParts {
		return 0, errParts.Because(errors.New("no parts, or too many"))
	}
	return size, nil
}

// spans writes numbers, which are in order, as "1-3, 7", at most about 20 of
// them.
func spans(numbers []int) string {
	var b strings.Builder
	for i, shown := 0, 0; i < len(numbers); shown++ {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if shown == 10 {
			b.WriteString("…")
			break
		}
		b.WriteString(strconv.Itoa(numbers[i]))
		if end > i {
			b.WriteString("-" + strconv.Itoa(numbers[end]))
		}
		i = end + 1
	}
	return b.String()
}
