package settings

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// field is one setting or block of a struct.
type field struct {
	key        string // "" for an embedded struct, which has no key of its own
	def        string
	hasDefault bool
	doc        string
	typ        reflect.Type
	index      []int // as reflect.Value.FieldByIndex takes it
}

var (
	secretType   = reflect.TypeFor[Secret]()
	sizeType     = reflect.TypeFor[Size]()
	durationType = reflect.TypeFor[time.Duration]()
)

// ownFields lists the fields of a struct in order.
func ownFields(t reflect.Type) []field {
	var fs []field
	for i := range t.NumField() {
		sf := t.Field(i)
		key := sf.Tag.Get("yaml")
		if key == ",inline" {
			key = ""
		}
		inline := sf.Anonymous && key == "" && sf.Type.Kind() == reflect.Struct
		switch {
		case key == "-" || !sf.IsExported() && !sf.Anonymous:
			continue
		case !sf.IsExported() || key == "" && !inline || strings.ContainsAny(key, ",.[] "):
			panic(fmt.Sprintf("settings: %s.%s needs to be exported and a tag yaml:\"key\"", t, sf.Name))
		case !supported(sf.Type):
			panic(fmt.Sprintf("settings: %s.%s has the type %s, which is none for settings", t, sf.Name, sf.Type))
		}
		def, has := sf.Tag.Lookup("default")
		fs = append(fs, field{key: key, def: def, hasDefault: has, doc: sf.Tag.Get("doc"), typ: sf.Type, index: sf.Index})
	}
	return fs
}

// fieldsOf is ownFields with the fields of embedded structs in their place.
func fieldsOf(t reflect.Type) []field {
	var fs []field
	for _, f := range ownFields(t) {
		if f.key != "" {
			fs = append(fs, f)
			continue
		}
		for _, inner := range fieldsOf(f.typ) {
			inner.index = append(append([]int(nil), f.index...), inner.index...)
			fs = append(fs, inner)
		}
	}
	seen := map[string]bool{}
	for _, f := range fs {
		if seen[f.key] {
			panic(fmt.Sprintf("settings: %s has the key %q twice", t, f.key))
		}
		seen[f.key] = true
	}
	return fs
}

func keysOf(fs []field) []string {
	keys := make([]string, len(fs))
	for i, f := range fs {
		keys[i] = f.key
	}
	return keys
}

func supported(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		return true
	case reflect.Slice:
		return isScalar(t.Elem()) || isBlockList(t)
	case reflect.Map:
		return t.Key().Kind() == reflect.String && t.Elem().Kind() == reflect.String
	default:
		return isScalar(t)
	}
}

func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return true
	default:
		return false
	}
}

func isBlockList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// setDefaults sets every setting in the struct v to its default; one without
// a default becomes its zero value.
func setDefaults(v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		fv := v.FieldByIndex(f.index)
		if f.typ.Kind() == reflect.Struct {
			setDefaults(fv)
			continue
		}
		fv.SetZero()
		if !f.hasDefault || f.def == "" && f.typ.Kind() != reflect.String {
			continue
		}
		l := &loader{places: map[string]string{}}
		if l.text(fv, f.def, "default", f.key); len(l.mistakes) > 0 {
			panic(fmt.Sprintf("settings: %s: %v", v.Type(), l.mistakes))
		}
	}
}
