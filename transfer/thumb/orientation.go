package thumb

import (
	"bytes"
	"encoding/binary"
	"image"
)

// turn is how a picture has to be turned and mirrored to be seen as it was
// taken: the values of the EXIF tag Orientation (Exif 2.3, §4.6.4; TIFF 6.0,
// page 36). Phones store what the sensor saw and note how they were held.
type turn uint16

const (
	upright        turn = 1
	lastTurn       turn = 8
	orientationTag      = 0x0112
)

// orientation finds the tag in the first bytes of a JPEG file. Whatever is not
// well-formed is upright: the picture is there all the same.
func orientation(head []byte) turn {
	if !bytes.HasPrefix(head, []byte{0xff, 0xd8}) {
		return upright
	}
	for p := head[2:]; len(p) >= 4 && p[0] == 0xff; {
		marker, size := p[1], int(binary.BigEndian.Uint16(p[2:]))
		switch {
		case marker == 0xff: // padding
			p = p[1:]
			continue
		case marker == 0xda || marker == 0xd9 || size < 2 || len(p) < 2+size: // the picture itself begins
			return upright
		}
		segment := p[4 : 2+size]
		if tiff, ok := bytes.CutPrefix(segment, []byte("Exif\x00\x00")); ok && marker == 0xe1 {
			return orientationOf(tiff)
		}
		p = p[2+size:]
	}
	return upright
}

// orientationOf reads the first directory of TIFF data.
func orientationOf(tiff []byte) turn {
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case bytes.HasPrefix(tiff, []byte("MM\x00\x2a")):
		order = binary.BigEndian
	case !bytes.HasPrefix(tiff, []byte("II\x2a\x00")):
		return upright
	}
	if len(tiff) < 8 {
		return upright
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return upright
	}
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < 12 {
			return upright
		}
		const short = 3
		tag, kind, count := order.Uint16(entries), order.Uint16(entries[2:]), order.Uint32(entries[4:])
		if tag == orientationTag && kind == short && count == 1 {
			if t := turn(order.Uint16(entries[8:])); t >= upright && t <= lastTurn {
				return t
			}
			return upright
		}
		entries = entries[12:]
	}
	return upright
}

// swaps tells whether width and height change places.
func (t turn) swaps() bool { return t >= 5 && t <= lastTurn }

// apply returns the picture as it is to be seen.
func (t turn) apply(from *image.RGBA) *image.RGBA {
	if t <= upright || t > lastTurn {
		return from
	}
	w, h := from.Rect.Dx(), from.Rect.Dy()
	size := image.Rect(0, 0, w, h)
	if t.swaps() {
		size = image.Rect(0, 0, h, w)
	}
	to := image.NewRGBA(size)
	for y := range size.Dy() {
		for x := range size.Dx() {
			sx, sy := t.source(x, y, w, h)
			copy(to.Pix[to.PixOffset(x, y):][:4], from.Pix[from.PixOffset(sx, sy):][:4])
		}
	}
	return to
}

// source returns which pixel of a picture of w by h is seen at x, y.
func (t turn) source(x, y, w, h int) (int, int) {
	switch t {
	case 2:
		return w - 1 - x, y
	case 3:
		return w - 1 - x, h - 1 - y
	case 4:
		return x, h - 1 - y
	case 5:
		return y, x
	case 6:
		return y, h - 1 - x
	case 7:
		return w - 1 - y, h - 1 - x
	case 8:
		return w - 1 - y, x
	}
	return x, y
}
