package serverapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
)

// command is one line of the older form, in which the body names the method.
type command struct {
	ID     uint32          `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// commandReply is the line that answers it.
type commandReply struct {
	ID     uint32    `json:"id,omitempty"`
	Result any       `json:"result,omitempty"`
	Error  *apiError `json:"error,omitempty"`
}

// serveCommands is POST /api: commands one after the other, as a rule one a
// line, are run in order and answered by as many lines. Nothing is run unless
// all of them can be read.
func (a *API) serveCommands(ctx context.Context, w http.ResponseWriter, c caller, body []byte) {
	list, err := readCommands(body)
	if err != nil {
		a.refuse(w, "commands", http.StatusBadRequest, http.StatusText(http.StatusBadRequest))
		return
	}
	c.looks = new(atomic.Int64)
	lines := make([][]byte, 0, len(list))
	for i, cmd := range list {
		line := commandReply{ID: cmd.ID}
		err := c.takeMore(i)
		if err == nil {
			line.Result, err = a.runNamed(ctx, c, cmd.Method, cmd.Params)
		}
		if err != nil {
			line.Result, line.Error = nil, errorOf(err)
		}
		a.countCommand(cmd.Method, line.Error)
		lines = append(lines, encode(line))
	}
	writeBody(w, http.StatusOK, bytes.Join(lines, []byte("\n")))
}

func readCommands(body []byte) (list []command, err error) {
	for dec := json.NewDecoder(bytes.NewReader(body)); ; {
		cmd := command{Params: json.RawMessage("{}")}
		switch err := dec.Decode(&cmd); {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return nil, errMalformed
		case len(list) == maxTargets:
			return nil, badRequest("too many commands")
		}
		list = append(list, cmd)
	}
}

func (a *API) countCommand(name string, e *apiError) {
	if _, known := methods[name]; !known {
		name = "unknown"
	}
	result := "ok"
	if e != nil {
		result = strconv.FormatUint(uint64(e.Code), 10)
	}
	a.metrics.requests.WithLabelValues(name, result).Inc()
}
