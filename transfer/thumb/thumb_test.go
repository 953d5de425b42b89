package thumb

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

var red, green, blue, white = color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{0, 0, 255, 255}, color.RGBA{255, 255, 255, 255}

// corners is a picture whose four quarters differ: red, green, blue, white, as
// one reads.
func corners(w, h int) *image.RGBA {
	p := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			p.SetRGBA(x, y, [4]color.RGBA{red, green, blue, white}[2*(2*y/h)+2*x/w])
		}
	}
	return p
}

// seen names the quarters of a picture: "rgbw" is how corners looks.
func seen(p image.Image) string {
	b := p.Bounds()
	var s strings.Builder
	for i := range 4 {
		r, g, bl, _ := p.At(b.Min.X+b.Dx()*(1+2*(i%2))/4, b.Min.Y+b.Dy()*(1+2*(i/2))/4).RGBA()
		name := fmt.Sprintf("(%d %d %d)", r>>8, g>>8, bl>>8)
		for n, c := range map[string]color.RGBA{"r": red, "g": green, "b": blue, "w": white} {
			cr, cg, cb, _ := c.RGBA()
			near := func(a, b uint32) bool { return max(a, b)-min(a, b) < 60<<8 }
			if near(r, cr) && near(g, cg) && near(bl, cb) {
				name = n
			}
		}
		s.WriteString(name)
	}
	return s.String()
}

func asJPEG(t testing.TB, p image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, p, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, p image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// held puts an EXIF segment in front of a JPEG.
func held(picture []byte, order binary.AppendByteOrder, turn uint16) []byte {
	tiff := []byte("II\x2a\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		tiff = []byte("MM\x00\x2a")
	}
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 2)
	for _, e := range [][2]uint16{{0x0100, 7}, {orientationTag, turn}} {
		tiff = order.AppendUint16(tiff, e[0])
		tiff = order.AppendUint16(tiff, 3)
		tiff = order.AppendUint32(tiff, 1)
		tiff = order.AppendUint16(tiff, e[1])
		tiff = order.AppendUint16(tiff, 0)
	}
	exif := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{}, picture[:2]...)
	out = append(out, 0xff, 0xe0, 0, 4, 1, 2) // another segment before
	out = binary.BigEndian.AppendUint16(append(out, 0xff, 0xe1), uint16(2+len(exif)))
	return append(append(out, exif...), picture[2:]...)
}

func mustMake(t *testing.T, data []byte, media string, v Variant) (image.Image, string) {
	t.Helper()
	out, as, err := Make(t.Context(), bytes.NewReader(data), media, v, 1<<20)
	if err != nil {
		t.Fatalf("%v of %s: %v", v, media, err)
	}
	p, format, err := image.Decode(bytes.NewReader(out))
	if err != nil || "image/"+format != as {
		t.Fatalf("%v of %s: %s called %s, %v", v, media, format, as, err)
	}
	return p, as
}

func TestMakeSizes(t *testing.T) {
	wide, tall := asJPEG(t, corners(400, 200)), asPNG(t, corners(100, 300))
	for _, tt := range []struct {
		data  []byte
		media string
		v     Variant
		want  string // size
		looks string
	}{
		{wide, "image/jpeg", Variant{100, 100, Contain}, "(100,50)", "rgbw"},
		{wide, "image/jpeg", Variant{100, 0, Contain}, "(100,50)", "rgbw"},
		{wide, "image/jpeg", Variant{0, 100, Contain}, "(200,100)", "rgbw"},
		{wide, "image/jpeg", Variant{4000, 4000, Contain}, "(400,200)", "rgbw"}, // never enlarged
		{wide, "image/jpeg", Variant{100, 100, Cover}, "(100,100)", "rgbw"},
		{wide, "image/jpeg", Variant{16, 160, Cover}, "(16,160)", "rgbw"},
		{wide, "image/jpeg", Variant{400, 400, Cover}, "(200,200)", "rgbw"},
		{wide, "image/jpeg", Variant{1, 1, Cover}, "(1,1)", ""},
		{tall, "image/png", Variant{50, 50, Contain}, "(17,50)", "rgbw"},
		{tall, "image/png", Variant{50, 50, Cover}, "(50,50)", "rgbw"},
		{tall, "image/png", Variant{1, 0, Contain}, "(1,3)", ""},
	} {
		p, as := mustMake(t, tt.data, tt.media, tt.v)
		if got := p.Bounds().Size().String(); got != tt.want || as != "image/jpeg" {
			t.Errorf("%v: %s %s, want %s", tt.v, as, got, tt.want)
		}
		if tt.looks != "" && seen(p) != tt.looks {
			t.Errorf("%v: looks like %s", tt.v, seen(p))
		}
	}
}

func TestMakeKeepsTransparency(t *testing.T) {
	p := corners(100, 100)
	for x := range 100 {
		p.SetRGBA(x, 10, color.RGBA{})
	}
	if got, as := mustMake(t, asPNG(t, p), "image/png", Variant{50, 50, Contain}); as != "image/png" || got.Bounds().Dx() != 50 {
		t.Errorf("%s of %v", as, got.Bounds())
	}
}

func TestMakeWebP(t *testing.T) {
	for name, text := range map[string]string{ // both of one pixel
		"lossy":    "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAgA0JaQAA3AA/vuUAAA=",
		"lossless": "UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==",
	} {
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if p, _ := mustMake(t, data, "image/webp", Variant{100, 100, Contain}); p.Bounds().Size() != image.Pt(1, 1) {
			t.Errorf("%s: %v", name, p.Bounds())
		}
	}
}

// Photos are seen as they were taken, whatever way the phone was held.
func TestMakeTurns(t *testing.T) {
	for tag, looks := range map[uint16]string{
		0: "rgbw", 1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb", 9: "rgbw",
	} {
		for _, order := range []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian} {
			p, _ := mustMake(t, held(asJPEG(t, corners(400, 200)), order, tag), "image/jpeg", Variant{100, 60, Contain})
			want := image.Pt(100, 50)
			if tag >= 5 && tag <= 8 {
				want = image.Pt(30, 60)
			}
			if seen(p) != looks || p.Bounds().Size() != want {
				t.Errorf("%d: %s of %v, want %s of %v", tag, seen(p), p.Bounds().Size(), looks, want)
			}
			p, _ = mustMake(t, held(asJPEG(t, corners(400, 200)), order, tag), "image/jpeg", Variant{80, 40, Cover})
			if seen(p) != looks || p.Bounds().Size() != image.Pt(80, 40) {
				t.Errorf("%d covers: %s of %v", tag, seen(p), p.Bounds().Size())
			}
		}
	}
}

// What has too many pixels is never decoded.
func TestMakeChecksBeforeDecoding(t *testing.T) {
	data := asPNG(t, corners(64, 64))
	huge := bytes.Clone(data)
	binary.BigEndian.PutUint32(huge[16:], 1<<15) // its width
	binary.BigEndian.PutUint32(huge[20:], 1<<15)
	fixCRC(huge)
	for name, tt := range map[string]struct {
		data []byte
		max  int
		want error
	}{
		"fits":          {data, 64 * 64, nil},
		"one too many":  {data, 64*64 - 1, ErrLarge},
		"an enormous":   {huge, 1<<30 - 1, ErrLarge},
		"cut":           {data[:60], 1 << 20, ErrFormat},
		"nothing":       {nil, 1 << 20, ErrFormat},
		"something":     {[]byte(strings.Repeat("x", 100)), 1 << 20, ErrFormat},
		"another image": {asJPEG(t, corners(8, 8)), 1 << 20, ErrFormat},
	} {
		_, _, err := Make(t.Context(), bytes.NewReader(tt.data), "image/png", Variant{10, 10, Contain}, tt.max)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, _, err := Make(t.Context(), bytes.NewReader(data), "image/gif", Variant{10, 10, Contain}, 1<<20); !errors.Is(err, ErrFormat) {
		t.Errorf("another type: %v", err)
	}
}

// An error of the storage is not taken for a damaged picture, nor is the end of
// the time that there is.
func TestMakeEnds(t *testing.T) {
	data := asPNG(t, noise(1200, 1200)) // more than headSize
	if len(data) <= headSize+1000 {
		t.Fatalf("only %d bytes", len(data))
	}
	away := errors.New("away")
	for _, cut := range []int64{0, 100, headSize + 500} {
		r := io.MultiReader(io.LimitReader(bytes.NewReader(data), cut), iotest.ErrReader(away))
		if _, _, err := Make(t.Context(), r, "image/png", Variant{10, 10, Contain}, 1<<22); !errors.Is(err, away) || errors.Is(err, ErrFormat) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		late := errors.New("late")
		ctx, cancel := context.WithCancelCause(t.Context())
		r = io.MultiReader(io.LimitReader(bytes.NewReader(data), cut), readerFunc(func([]byte) (int, error) { cancel(late); return 0, nil }))
		if _, _, err := Make(ctx, r, "image/png", Variant{10, 10, Contain}, 1<<22); !errors.Is(err, late) {
			t.Errorf("late at %d: %v", cut, err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func noise(w, h int) image.Image {
	p := image.NewRGBA(image.Rect(0, 0, w, h))
	state := uint32(1)
	for i := range p.Pix {
		state = state*1664525 + 1013904223
		p.Pix[i] = byte(state >> 24)
		if i%4 == 3 {
			p.Pix[i] = 255
		}
	}
	return p
}
