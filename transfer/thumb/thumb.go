// Package thumb makes small pictures of large ones: JPEG, PNG and WebP in, JPEG
// or PNG out.
//
// Pictures come from users and may be made to hurt. How many pixels one has is
// read from its header and checked before any of it is decoded; a time limit
// ends what decodes for too long, as a JPEG of thousands of scans would.
package thumb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"
)

// Fit says what becomes of a picture that has other proportions than its box.
type Fit string

const (
	Contain Fit = "contain" // all of it is inside of the box
	Cover   Fit = "cover"   // it fills the box, and loses what is over at two edges
)

// Variant is how a thumbnail is to be. No picture is ever enlarged.
type Variant struct {
	Width, Height int // pixels; one of them may be 0 with Contain
	Fit           Fit
}

// String is short, of lower case letters, digits and hyphens.
func (v Variant) String() string { return fmt.Sprintf("%dx%d-%s", v.Width, v.Height, v.Fit) }

var (
	// ErrLarge means that a picture has more pixels than are decoded.
	ErrLarge = errors.New("the picture has too many pixels")
	// ErrFormat means that it is not one of those that are read, or damaged.
	ErrFormat = errors.New("not a picture that can be read")
)

// codec reads one format.
type codec struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

var codecs = map[string]codec{
	"image/jpeg": {jpeg.DecodeConfig, jpeg.Decode},
	"image/png":  {png.DecodeConfig, png.Decode},
	"image/webp": {webp.DecodeConfig, webp.Decode},
}

// Reads tells whether Make can read a media type.
func Reads(media string) bool { return codecs[media].decode != nil }

const (
	// headSize is how far into a file its header may reach: what cameras put in
	// front of the picture takes some 100 KiB.
	headSize = 1 << 20
	quality  = 82 // of JPEG
)

// Make returns a thumbnail of the picture in r, of which media is the type, and
// its own type. A picture of more than maxPixels is ErrLarge, what cannot be
// decoded ErrFormat; an error of r comes back wrapped, and so does the cause of
// the end of ctx.
func Make(ctx context.Context, r io.Reader, media string, v Variant, maxPixels int) (data []byte, as string, err error) {
	c, ok := codecs[media]
	if !ok {
		return nil, "", ErrFormat
	}
	src := &source{ctx: ctx, r: r}
	head, err := io.ReadAll(io.LimitReader(src, headSize))
	if err != nil {
		return nil, "", err
	}
	config, err := c.config(bytes.NewReader(head))
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if config.Width <= 0 || config.Height <= 0 || int64(config.Width)*int64(config.Height) > int64(maxPixels) {
		return nil, "", fmt.Errorf("%w: %d x %d", ErrLarge, config.Width, config.Height)
	}
	picture, err := c.decode(io.MultiReader(bytes.NewReader(head), src))
	if src.err != nil {
		return nil, "", src.err
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrFormat, err)
	}
	turn := upright
	if media == "image/jpeg" {
		turn = orientation(head)
	}
	return encode(turn.apply(v.scale(picture, turn)))
}

// source remembers why it ended early, and ends with ctx.
type source struct {
	ctx context.Context
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		s.err = context.Cause(s.ctx)
		return 0, s.err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// scale makes the picture as large as v says, as it lies: turn is still to come.
func (v Variant) scale(picture image.Image, turn turn) *image.RGBA {
	if turn.swaps() {
		v.Width, v.Height = v.Height, v.Width
	}
	from, size := v.fit(picture.Bounds())
	to := image.NewRGBA(image.Rectangle{Max: size})
	draw.CatmullRom.Scale(to, to.Bounds(), picture, from, draw.Src, nil)
	return to
}

// fit returns which part of a picture is shown, and in which size.
func (v Variant) fit(b image.Rectangle) (from image.Rectangle, size image.Point) {
	w, h := float64(b.Dx()), float64(b.Dy())
	if v.Fit != Cover {
		scale := 1.0
		if v.Width > 0 {
			scale = min(scale, float64(v.Width)/w)
		}
		if v.Height > 0 {
			scale = min(scale, float64(v.Height)/h)
		}
		return b, image.Pt(pixels(w*scale), pixels(h*scale))
	}
	boxW, boxH := float64(v.Width), float64(v.Height)
	part := image.Pt(min(b.Dx(), pixels(h*boxW/boxH)), min(b.Dy(), pixels(w*boxH/boxW)))
	from = image.Rectangle{Max: part}.Add(b.Min).Add(image.Pt((b.Dx()-part.X)/2, (b.Dy()-part.Y)/2))
	scale := min(1, float64(part.X)/boxW, float64(part.Y)/boxH)
	return from, image.Pt(pixels(boxW*scale), pixels(boxH*scale))
}

// pixels is a number of them, never none.
func pixels(n float64) int { return max(1, int(n+0.5)) }

// encode writes JPEG, or PNG where something shows through.
func encode(picture *image.RGBA) ([]byte, string, error) {
	var b bytes.Buffer
	if picture.Opaque() {
		err := jpeg.Encode(&b, picture, &jpeg.Options{Quality: quality})
		return b.Bytes(), "image/jpeg", err
	}
	err := png.Encode(&b, picture)
	return b.Bytes(), "image/png", err
}
