package gateway

import (
	"errors"
	"regexp"
	"strings"

	"github.com/minigate/minigate/internal/fault"
)

var errPattern = fault.New(fault.Invalid, ErrBadRequest.Code, `pattern is a glob: * ? [a-z] [!a] {one,two}, and \ before a character that is meant as it is.`)

// glob matches names of channels. The zero value matches all.
type glob struct{ re *regexp.Regexp }

func (g glob) match(name string) bool { return g.re == nil || g.re.MatchString(name) }

// newGlob understands patterns as Centrifugo does: * is any text, also none, ?
// any character, [abc], [a-z] and [!a] one of a set, {one,two} one of several
// patterns. It takes at most limit bytes. The time of a match grows with the
// length of pattern and name and not faster.
func newGlob(pattern string, limit int) (glob, error) {
	switch {
	case pattern == "":
		return glob{}, nil
	case len(pattern) > limit:
		return glob{}, errPattern
	}
	g := globParser{rest: []rune(pattern)}
	g.out.WriteString(`(?s)^`)
	for len(g.rest) > 0 {
		if err := g.next(); err != nil {
			return glob{}, errPattern.Because(err)
		}
	}
	if g.depth > 0 {
		return glob{}, errPattern.Because(errors.New("{ without }"))
	}
	re, err := regexp.Compile(g.out.String() + `$`)
	if err != nil {
		return glob{}, errPattern.Because(err)
	}
	return glob{re}, nil
}

// globParser turns a pattern into a regular expression.
type globParser struct {
	rest  []rune
	out   strings.Builder
	depth int // of braces
}

func (g *globParser) take() rune {
	r := g.rest[0]
	g.rest = g.rest[1:]
	return r
}

func (g *globParser) next() error {
	switch r := g.take(); {
	case r == '*':
		g.out.WriteString(`.*`)
	case r == '?':
		g.out.WriteString(`.`)
	case r == '[':
		return g.set()
	case r == '{':
		g.depth++
		g.out.WriteString(`(?:`)
	case r == '}' && g.depth > 0:
		g.depth--
		g.out.WriteString(`)`)
	case r == ',' && g.depth > 0:
		g.out.WriteString(`|`)
	case r == '\\':
		if len(g.rest) == 0 {
			return errors.New(`\ at the end`)
		}
		g.quote(g.take())
	default:
		g.quote(r)
	}
	return nil
}

func (g *globParser) quote(r rune) { g.out.WriteString(regexp.QuoteMeta(string(r))) }

// set is what follows a [.
func (g *globParser) set() error {
	g.out.WriteString(`[`)
	if len(g.rest) > 0 && g.rest[0] == '!' {
		g.take()
		g.out.WriteString(`^`)
	}
	for first := true; len(g.rest) > 0; first = false {
		switch r := g.take(); {
		case r == ']' && !first:
			g.out.WriteString(`]`)
			return nil
		case r == '-' && !first && len(g.rest) > 0 && g.rest[0] != ']':
			g.out.WriteString(`-`) // a range; one that runs backwards does not compile
		case r == '\\' && len(g.rest) > 0:
			g.literal(g.take())
		default:
			g.literal(r)
		}
	}
	return errors.New("[ without ]")
}

// literal is a character in a set.
func (g *globParser) literal(r rune) {
	if strings.ContainsRune(`[]^-\&`, r) {
		g.out.WriteByte('\\')
	}
	g.out.WriteRune(r)
}
