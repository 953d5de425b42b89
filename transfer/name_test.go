package transfer

import (
	"mime"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestCleanName(t *testing.T) {
	for raw, want := range map[string]string{
		"a.jpg":                            "a.jpg",
		"照片 1.jpg":                         "照片 1.jpg",
		"👨‍👩‍👧.png":                        "👨‍👩‍👧.png",
		"e\u0301.txt":                      "é.txt",
		"/etc/passwd":                      "passwd",
		"../../x":                          "x",
		`C:\dir\x.exe`:                     "x.exe",
		"..":                               "",
		".":                                "",
		"":                                 "",
		"dir/":                             "",
		".htaccess":                        ".htaccess",
		"a\r\nSet-Cookie: x":               "aSet-Cookie: x",
		"a\x00b\x7f\u0085":                 "ab",
		"invoice\u202egpj.exe":             "invoicegpj.exe",
		"\u2066a\u2069\u200e.txt":          "a.txt",
		"\ufeffa":                          "a",
		"a\u2028b\u2029c":                  "abc",
		"a\u00a0b\tc":                      "a bc",
		"  a . ":                           "a",
		`a"b;c=d.txt`:                      `a"b;c=d.txt`,
		"=?UTF-8?B?5Zu+LnBuZw==?=":         "图.png",
		"=?broken":                         "=?broken",
		"\xd6\xd0\xce\xc4.txt":             "中文.txt", // GBK
		"\xff\xfe.txt":                     "_.txt",
		"=?UTF-8?Q?..=2Fx?=":               "x",
		strings.Repeat("中", 100) + ".jpeg": strings.Repeat("中", 83) + ".jpeg",
		strings.Repeat("a", 300):           strings.Repeat("a", 255),
	} {
		if got := cleanName(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"a.jpg", "中文.txt", "\xd6\xd0\xce\xc4", "=?UTF-8?B?5Zu+?=", "a\u202eb", `a"\b%41;.txt`, strings.Repeat("é", 200) + ".x", "\xc3\x28"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name := cleanName(raw)
		if len(name) > maxName || !utf8.ValidString(name) || !norm.NFC.IsNormalString(name) || strings.ContainsAny(name, `/\`) || name == ".." {
			t.Errorf("%q became %q", raw, name)
		}
		for _, r := range name {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q became %q, which has %U", raw, name, r)
			}
		}
		if again := cleanName(name); again != name && !strings.HasPrefix(name, "=?") {
			t.Errorf("%q became %q, and that %q", raw, name, again)
		}
		if name == "" {
			return
		}
		header := disposition("attachment", name)
		kind, params, err := mime.ParseMediaType(header)
		if err != nil || kind != "attachment" || params["filename"] != name {
			t.Errorf("%q: %s says %q, %v", name, header, params["filename"], err)
		}
	})
}

// Whatever a name is, the header stays one header of printable ASCII.
func FuzzDisposition(f *testing.F) {
	for _, seed := range []string{"a", "a\r\nb: c", `"`, "\x00", "é", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		header := disposition("inline", name)
		if strings.ContainsFunc(header, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: %q", name, header)
		}
		if strings.Count(header, `"`) > 2 {
			t.Errorf("%q breaks out: %s", name, header)
		}
	})
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-", "bytes=-5", "bytes=1-2,3-4", "bytes=99999999999999999999-", "bytes=5-1", "x"} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		r, ok := parseRange(header, size)
		if r.start < 0 || r.length < 0 || r.start+r.length > size || ok && !r.partial && r.length != size || r.partial && r.length == 0 {
			t.Errorf("%q of %d: %+v", header, size, r)
		}
	})
}

func FuzzConditions(f *testing.F) {
	for _, seed := range []string{`"a"`, `W/"a"`, `*`, `"b", "a"`, `"a`, `,,"a",`, `"b" x "a"`, "Mon, 01 Jan 2001 00:00:00 GMT"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		strong, weak := matchETag(value, `"a"`, true), matchETag(value, `"a"`, false)
		if strong && !weak {
			t.Errorf("%q matches strongly, not weakly", value)
		}
		if weak && !strings.Contains(value, `"a"`) && !strings.Contains(value, "*") {
			t.Errorf("%q matches", value)
		}
		if !matchETag(`"a", `+value, `"a"`, true) {
			t.Errorf(`"a" is not found before %q`, value)
		}
		precondition(http.Header{"If-None-Match": {value}, "If-Unmodified-Since": {value}}, `"a"`, time.Unix(0, 0))
		ifRange(value, `"a"`, time.Unix(0, 0))
	})
}
