package transfer

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strconv"
)

// The index of an upload in parts has an entry for each part that is in its
// place: its size and its tag, which is never 0, and a checksum of both, so that
// one which a crash cut in half is none.
const indexEntry = 16 // bytes

func (p Part) entry() []byte {
	tag, _ := strconv.ParseUint(p.Tag, 36, 32) // as newTag made it
	e := binary.BigEndian.AppendUint64(nil, uint64(p.Size))
	e = binary.BigEndian.AppendUint32(e, uint32(tag))
	return binary.BigEndian.AppendUint32(e, crc32.Checksum(e, castagnoli))
}

func newTag() string { return strconv.FormatUint(uint64(rand.Uint32N(1<<32-1)+1), 36) }

// entryOf reads the entry of part n; ok is false where there is none.
func entryOf(n int, e []byte) (p Part, ok bool) {
	size, tag := binary.BigEndian.Uint64(e), binary.BigEndian.Uint32(e[8:])
	if tag == 0 || crc32.Checksum(e[:12], castagnoli) != binary.BigEndian.Uint32(e[12:]) {
		return p, false
	}
	return Part{N: n, Size: int64(size), Tag: strconv.FormatUint(uint64(tag), 36)}, true
}

// readIndex returns the parts that are in their places, in order.
func readIndex(name string) (parts []Part, err error) {
	text, err := os.ReadFile(name)
	for n := 1; n*indexEntry <= len(text); n++ {
		if p, ok := entryOf(n, text[(n-1)*indexEntry:n*indexEntry]); ok {
			parts = append(parts, p)
		}
	}
	return parts, err
}

// writeIndex enters p, for good.
func (u folderUpload) writeIndex(p Part) error {
	return u.changeIndex(func(f *os.File) error {
		_, err := f.WriteAt(p.entry(), int64(p.N-1)*indexEntry)
		return err
	})
}

// truncateIndex removes the entries behind the first keep, for good.
func (u folderUpload) truncateIndex(keep int) error {
	return u.changeIndex(func(f *os.File) error {
		info, err := f.Stat()
		if err == nil && info.Size() > int64(keep)*indexEntry {
			err = f.Truncate(int64(keep) * indexEntry)
		}
		return err
	})
}

func (u folderUpload) changeIndex(change func(f *os.File) error) error {
	f, err := u.open(u.index(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err = change(f); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
