package transfer

import (
	"mime"
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"github.com/minigate/minigate/auth"
	"github.com/minigate/minigate/internal/fault"
)

var (
	errType      = fault.New(fault.Unsupported, "type_not_allowed", "Files of this type are not taken.")
	errTypeMatch = fault.New(fault.Unsupported, "type_mismatch", "The file is not of the type that its name, or who sent it, says.")
)

// matches tells whether a media type is among types; none stand for all.
func matches(types []string, media string) bool {
	if len(types) == 0 {
		return true
	}
	media, _, _ = strings.Cut(media, ";")
	major, _, _ := strings.Cut(media, "/")
	for _, t := range types {
		if strings.EqualFold(t, media) || strings.EqualFold(t, major+"/*") || t == "*/*" {
			return true
		}
	}
	return false
}

// allowed tells whether files of a media type are taken.
func (s *Service) allowed(media string) bool { return matches(s.settings.AllowedTypes, media) }

// limit is how large a file of a media type may be that is read by who a says;
// where the type is "", not yet known, of any type.
func (s *Service) limit(owner auth.User, a Access, media string) int64 {
	most := int64(0)
	for _, l := range s.settings.Limits {
		if len(l.AppIDs) > 0 && !slices.Contains(l.AppIDs, owner.AppID) || len(l.Access) > 0 && !slices.Contains(l.Access, a.kind()) {
			continue
		}
		switch {
		case len(l.Types) == 0, media != "" && matches(l.Types, media):
			return max(most, int64(l.MaxSize))
		case media == "":
			most = max(most, int64(l.MaxSize))
		}
	}
	return int64(s.settings.MaxSize) // no limit is larger
}

// judge refuses a file whose bytes are of a type that is not taken. Where they
// contradict its name, or the type that was declared of it, that counts if the
// settings say so; where the backend was asked about an upload by its declared
// type, that has to be true in any case.
func (s *Service) judge(f File, declared string, found *mimetype.MIME) error {
	switch {
	case !s.allowed(found.String()):
		return errType
	case s.settings.MatchTypes && !(fits(found, declared) && fits(found, typeOfName(f.Name))),
		s.hook != nil && !fits(found, f.Session.Type):
		return errTypeMatch
	}
	return nil
}

// fits tells whether bytes of the type found can be what was declared: one has
// to be a kind of the other, as a .docx is a zip file. What is not known here
// fits everything.
func fits(found *mimetype.MIME, declared string) bool {
	media, _, err := mime.ParseMediaType(declared)
	known := mimetype.Lookup(media)
	if err != nil || known == nil || known.Parent() == nil {
		return true
	}
	for m := found; m.Parent() != nil; m = m.Parent() {
		if m.Is(media) {
			return true
		}
	}
	for m := known; m.Parent() != nil; m = m.Parent() {
		if found.Is(m.String()) {
			return true
		}
	}
	return streams(media) && streams(found.String()) || phonePicture(media) && phonePicture(found.String()) // one container for both
}

// phonePicture tells whether a type is one of HEIF, whose kinds are told apart
// by a brand that cameras are not strict about.
func phonePicture(media string) bool {
	return strings.HasPrefix(media, "image/heic") || strings.HasPrefix(media, "image/heif")
}

func streams(media string) bool {
	return strings.HasPrefix(media, "audio/") || strings.HasPrefix(media, "video/")
}
