package settings

import (
	"fmt"
	"reflect"
)

type checker interface {
	Check(report func(path, problem string))
}

// check calls Check of the struct v and of every struct in it.
func (l *loader) check(v reflect.Value, path string) {
	if c, ok := v.Addr().Interface().(checker); ok {
		c.Check(func(rel, problem string) { l.report(join(path, rel), problem) })
	}
	for _, f := range ownFields(v.Type()) {
		fv, at := v.FieldByIndex(f.index), join(path, f.key)
		switch {
		case f.typ.Kind() == reflect.Struct:
			l.check(fv, at)
		case isBlockList(f.typ):
			for i := range fv.Len() {
				l.check(fv.Index(i), element(at, i))
			}
		}
	}
}

// report adds what a Check found, unless the value there could not even be
// read, or the same was said before: a struct shares the Check of the one it
// embeds.
func (l *loader) report(path, problem string) {
	for i, m := range l.mistakes {
		unread := i < l.loaded && path != ""
		if m.Path == path && (unread || m.Problem == problem) {
			return
		}
	}
	l.wrong(l.placeOf(path), path, "%s", problem)
}

func join(path, rel string) string {
	if path == "" || rel == "" || rel[0] == '[' {
		return path + rel
	}
	return path + "." + rel
}

func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
