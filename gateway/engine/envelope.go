package engine

import (
	"errors"
	"strconv"
	"strings"
)

// Messages on pub/sub are a line of text and a body. The line starts with the
// version of the format and the kind; the rest depends on the kind.
//
//	1p<offset>:<epoch>:<asker>:<request>   publication
//	1j0:::  1l0:::                         join, leave
//	1b                                     beat, to our own inbox
//	1c<request>:<sockets>:<node>           answer to the asker of a publication
//	1h<request>:<asker>                    who does not hear the channel in the body says so
//	1q<request>:<asker>:<op>               survey question
//	1a<request>                            survey answer
//
// The bodies are a protocol.Publication or protocol.ClientInfo in protobuf,
// or what the survey carries.
const (
	kindPublication = 'p'
	kindJoin        = 'j'
	kindLeave       = 'l'
	kindBeat        = 'b'
	kindCount       = 'c'
	kindHearing     = 'h'
	kindQuestion    = 'q'
	kindAnswer      = 'a'
)

// maxHeader bounds the first line: offset, epoch, a node's UID and a number.
const maxHeader = 256

var errMessage = errors.New("engine: malformed pub/sub message")

// envelope is a message that was taken apart.
type envelope struct {
	kind    byte
	pos     Position
	asker   string // node that wants to know how many sockets were reached, that asks, or that answers with a count
	request uint64
	op      string
	sockets int
	body    string
}

// parseEnvelope reads any message of this format.
func parseEnvelope(s string) (envelope, error) {
	line, body, _ := strings.Cut(s, "\n")
	if len(line) < 2 || len(line) > maxHeader || line[0] != '1' {
		return envelope{}, errMessage
	}
	e := envelope{kind: line[1], body: body}
	line = line[2:]
	ok := true
	switch e.kind {
	case kindPublication, kindJoin, kindLeave:
		ok = e.parsePosition(line)
	case kindBeat:
		ok = line == ""
	case kindCount:
		request, rest, _ := strings.Cut(line, ":")
		sockets, node, _ := strings.Cut(rest, ":")
		e.asker = node
		n, err := strconv.ParseUint(sockets, 10, 31)
		e.sockets, ok = int(n), err == nil && e.parseRequest(request)
	case kindQuestion:
		request, rest, _ := strings.Cut(line, ":")
		e.asker, e.op, _ = strings.Cut(rest, ":")
		ok = e.asker != "" && e.parseRequest(request)
	case kindHearing:
		request, asker, _ := strings.Cut(line, ":")
		e.asker = asker
		ok = asker != "" && e.parseRequest(request)
	case kindAnswer:
		ok = e.parseRequest(line)
	default:
		ok = false
	}
	if !ok {
		return envelope{}, errMessage
	}
	return e, nil
}

func (e *envelope) parseRequest(s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	e.request = n
	return err == nil
}

// parsePosition reads offset, epoch and the asker, if any.
func (e *envelope) parsePosition(line string) bool {
	offset, rest, ok := strings.Cut(line, ":")
	if !ok {
		return false
	}
	epoch, rest, ok := strings.Cut(rest, ":")
	if !ok {
		return false
	}
	asker, request, ok := strings.Cut(rest, ":")
	if !ok {
		return false
	}
	n, err := strconv.ParseUint(offset, 10, 64)
	if err != nil {
		return false
	}
	e.pos = Position{Offset: n, Epoch: epoch}
	e.asker = asker
	return asker == "" || e.parseRequest(request)
}
