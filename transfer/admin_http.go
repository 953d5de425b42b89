package transfer

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
	"github.com/minigate/minigate/internal/rest"
)

// The handlers in this file are for the backend and for operators. They ask
// for no token: whoever mounts them has to know who calls.

const (
	maxAdminBody = 4 << 10 // bytes
	defaultPage  = 50
	maxPage      = 500
)

var (
	errPage   = fault.Newf(fault.Invalid, "page_invalid", "limit is between 1 and %d.", maxPage)
	errCursor = fault.New(fault.Invalid, "cursor_invalid", "This cursor is not one of a list of files.")
	errFileID = fault.New(fault.Invalid, "file_id_invalid", "file must be the id of a file: 26 capital letters and digits.")
)

// FileInfo is a file as the backend and operators see it.
type FileInfo struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Size    int64     `json:"size"` // bytes
	Type    string    `json:"type"` // media type, as sniffed
	SHA256  string    `json:"sha256"`
	Owner   auth.User `json:"owner"`
	State   State     `json:"state"`
	Created time.Time `json:"created"`
	Access
	ExpiresAt  time.Time       `json:"expires_at,omitzero"`  // when it ends by itself
	Attributes json.RawMessage `json:"attributes,omitempty"` // what the backend attached at the upload
	Reason     Reason          `json:"reason,omitzero"`      // why it is blocked
}

func infoOf(f File) FileInfo {
	return FileInfo{f.ID, f.Name, f.Size, f.Type, f.SHA256, f.Owner, f.State, f.Created, f.Access, f.Expires, json.RawMessage(f.Attributes), f.Check.Reason}
}

// ListAnswer is what ServeList answers.
type ListAnswer struct {
	Files  []FileInfo `json:"files"`            // no pending ones, the newest first
	Cursor string     `json:"cursor,omitempty"` // of the next page; missing on the last one
}

// ServeList is POST {user?, limit?, cursor?} → ListAnswer: the files of a user
// (openid), or all, also those that are being checked or blocked; limit is 50
// unless given, and 500 at most. A page may be short and not be the last. Faults:
// Invalid `page_invalid`, `cursor_invalid`, `openid_invalid`; Unavailable
// `files_unavailable`.
func (s *Service) ServeList(w http.ResponseWriter, r *http.Request) error {
	req := struct {
		User, Cursor string
		Limit        int
	}{Limit: defaultPage}
	if err := rest.Decode(w, r, maxAdminBody, &req); err != nil {
		return err
	}
	after, ok := parsePlace(req.Cursor)
	switch {
	case req.Limit < 1 || req.Limit > maxPage:
		return errPage
	case !ok:
		return errCursor
	case req.User != "":
		if err := auth.CheckOpenID(req.User); err != nil {
			return err
		}
	}
	files, next, err := s.ledger.List(r.Context(), req.User, after, req.Limit)
	if err != nil {
		return err
	}
	answer := ListAnswer{Files: make([]FileInfo, 0, len(files)), Cursor: string(next)}
	for _, f := range files {
		answer.Files = append(answer.Files, infoOf(f))
	}
	return rest.JSON(w, http.StatusOK, answer)
}

// fileRequest is the body that the handlers of one file take.
type fileRequest struct {
	File string `json:"file"` // id
}

func readFileRequest(w http.ResponseWriter, r *http.Request) (req fileRequest, err error) {
	err = rest.Decode(w, r, maxAdminBody, &req)
	if err == nil && !isID(req.File) {
		err = errFileID
	}
	return req, err
}

// ServeStat is POST {file} → FileInfo, of a file in any state. Faults: Invalid
// `file_id_invalid`; NotFound `file_not_found`; Unavailable
// `files_unavailable`.
func (s *Service) ServeStat(w http.ResponseWriter, r *http.Request) error {
	req, err := readFileRequest(w, r)
	if err != nil {
		return err
	}
	f, err := s.ledger.Get(r.Context(), req.File)
	if err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, infoOf(f))
}

// ServeRemove is POST {file} → {}, whoever's the file is: it cannot be read any
// more. Where the storage is away, its bytes go later. Faults: as of ServeStat,
// and Conflict `file_state` while it is still being uploaded.
func (s *Service) ServeRemove(w http.ResponseWriter, r *http.Request) error {
	req, err := readFileRequest(w, r)
	if err != nil {
		return err
	}
	if err := s.delete(r.Context(), req.File); err != nil {
		return err
	}
	return rest.JSON(w, http.StatusOK, struct{}{})
}
