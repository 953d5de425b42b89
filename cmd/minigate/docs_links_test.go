package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var (
	codeFence = regexp.MustCompile("(?ms)^```.*?^```$")
	pageLink  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	otherSite = regexp.MustCompile(`^[a-z]+:`)
	heading   = regexp.MustCompile(`(?m)^#+ (.+)$`)
	linkText  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// pages returns all pages of the repository by their path in it, without the
// code in them.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (entry.Name()[0] == '.' || slices.Contains([]string{"node_modules", "data", "testdata"}, entry.Name())):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".md"):
			return nil
		}
		text, err := fs.ReadFile(root, path)
		found[path] = codeFence.ReplaceAllString(string(text), "```")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 30 {
		t.Fatalf("found %d pages", len(found))
	}
	return found
}

// anchors are the headings of a page as links name them.
func anchors(page string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, linkText.ReplaceAllString(m[1], "$1")))
	}
	return names
}

const chinese = ".zh-CN.md"

// inChinese is the path of a page's translation.
func inChinese(path string) string { return strings.TrimSuffix(path, ".md") + chinese }

// TestLinksLeadSomewhere follows the links of all pages to other files of the
// repository and to headings. Those of a Chinese page lead to Chinese pages
// where there are any, but for the one to its original.
func TestLinksLeadSomewhere(t *testing.T) {
	all, followed := pages(t), 0
	for path, page := range all {
		for _, m := range pageLink.FindAllStringSubmatch(page, -1) {
			if otherSite.MatchString(m[1]) {
				continue
			}
			followed++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(path), file))
			}
			if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
				t.Errorf("%s links to %s, which is not there", path, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
				t.Errorf("%s links to %s, which has no such heading", path, m[1])
			}
			original := inChinese(target) == path
			if strings.HasSuffix(path, chinese) && !original && all[inChinese(target)] != "" {
				t.Errorf("%s links to %s, which is there in Chinese", path, m[1])
			}
			translation := inChinese(path) == target
			if !strings.HasSuffix(path, chinese) && !translation && strings.HasSuffix(target, chinese) {
				t.Errorf("%s links to %s, which is in Chinese", path, m[1])
			}
		}
	}
	if followed < 150 {
		t.Errorf("followed %d links", followed)
	}
}

var lineKind = regexp.MustCompile("^(#+ |- |[0-9]+\\. |\\||```)?")

// outline is what each line of a page is: a heading, an item, a row of a
// table, the code that stands here, text, or nothing.
func outline(page string) (kinds []string) {
	for line := range strings.Lines(page) {
		kind := lineKind.FindString(line)
		if kind == "" && strings.TrimSpace(line) != "" {
			kind = "text"
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

// TestBothLanguages compares each guide with its translation: it is there, and
// is built of the same headings, paragraphs, rows and pieces of code.
func TestBothLanguages(t *testing.T) {
	all, compared := pages(t), 0
	for path, page := range all {
		isGuide := path == "README.md" || strings.HasPrefix(path, "docs/") && path != "docs/configuration.md"
		if !isGuide || strings.HasSuffix(path, chinese) {
			continue
		}
		compared++
		translation, there := all[inChinese(path)]
		if !there {
			t.Errorf("%s is there in English only", path)
			continue
		}
		if a, b := outline(page), outline(translation); !slices.Equal(a, b) {
			i := 0
			for i < min(len(a), len(b)) && a[i] == b[i] {
				i++
			}
			t.Errorf("%s is built otherwise in Chinese: %d and %d lines, the same but for code until %d", path, len(a), len(b), i+1)
		}
	}
	if compared < 10 {
		t.Errorf("compared %d guides", compared)
	}
}
