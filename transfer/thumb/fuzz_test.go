package thumb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
)

// fixCRC makes the checksum of a PNG's first chunk right.
func fixCRC(data []byte) {
	binary.BigEndian.PutUint32(data[29:], crc32.ChecksumIEEE(data[12:29]))
}

// FuzzOrientation reads headers of whatever kind: no more than eight turns come
// out, and none is found where no EXIF is.
func FuzzOrientation(f *testing.F) {
	picture := asJPEG(f, corners(8, 8))
	f.Add(picture)
	f.Add(held(picture, binary.BigEndian, 6))
	f.Add(held(picture, binary.LittleEndian, 8))
	f.Add([]byte("\xff\xd8\xff\xe1\x00\x10Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff"))
	f.Add([]byte("\xff\xd8\xff\xff\xff\xe1\x00\x02"))
	f.Fuzz(func(t *testing.T, head []byte) {
		got := orientation(head)
		if got < upright || got > lastTurn || got != upright && !bytes.Contains(head, []byte("Exif\x00\x00")) {
			t.Errorf("turn %d", got)
		}
	})
}

// FuzzMake decodes what users send: it fails in one of the known ways or gives
// what was asked for.
func FuzzMake(f *testing.F) {
	for media, data := range map[string][]byte{"image/jpeg": asJPEG(f, corners(8, 4)), "image/png": asPNG(f, corners(8, 4))} {
		f.Add(data, media, 3, 2, true)
	}
	f.Add(held(asJPEG(f, corners(8, 4)), binary.BigEndian, 6), "image/jpeg", 3, 0, false)
	f.Fuzz(func(t *testing.T, data []byte, media string, w, h int, cover bool) {
		v := Variant{1 + abs(w)%64, abs(h) % 64, Contain}
		if cover {
			v = Variant{v.Width, 1 + v.Height, Cover}
		}
		out, as, err := Make(t.Context(), bytes.NewReader(data), media, v, 1<<16)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLarge) {
				t.Error(err)
			}
			return
		}
		config, err := codecs[as].config(bytes.NewReader(out))
		if err != nil || config.Width > v.Width || v.Height > 0 && config.Height > v.Height {
			t.Errorf("%v: %s of %d x %d, %v", v, as, config.Width, config.Height, err)
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}
