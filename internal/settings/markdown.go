package settings

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Markdown writes the reference of the settings in v, a struct or a pointer
// to one: a table of its plain settings, then a section for each block.
// prefix is that of the environment variables.
func Markdown(w io.Writer, v any, prefix string) error {
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var b strings.Builder
	m := markdown{&b, prefix}
	m.block(t, "", true)
	_, err := io.WriteString(w, b.String())
	return err
}

type markdown struct {
	*strings.Builder
	prefix string
}

// block writes the table of t's plain settings, then the blocks in it. Only
// what is not in a list has environment variables.
func (m markdown) block(t reflect.Type, path string, env bool) {
	var blocks []field
	rows := 0
	for _, f := range fieldsOf(t) {
		if f.typ.Kind() == reflect.Struct || isBlockList(f.typ) {
			blocks = append(blocks, f)
			continue
		}
		if rows++; rows == 1 {
			m.WriteString("| Key | Environment | Type | Default | What it does |\n|---|---|---|---|---|\n")
		}
		m.row(f, join(path, f.key), env)
	}
	if rows > 0 {
		m.WriteString("\n")
	}
	for _, f := range blocks {
		m.section(f, join(path, f.key), env)
	}
}

func (m markdown) row(f field, path string, env bool) {
	variable, def := "", f.def
	if env {
		variable = code(envName(m.prefix, path))
	}
	if f.typ == secretType {
		def = Secret(def).String()
	}
	m.WriteString(fmt.Sprintf("| %s | %s | %s | %s | %s |\n", code(path), variable, typeName(f.typ), code(def), cell(f.doc)))
}

func (m markdown) section(f field, path string, env bool) {
	if f.typ.Kind() == reflect.Struct {
		m.WriteString(fmt.Sprintf("## `%s`\n\n", path))
		m.paragraph(f.doc)
		m.block(f.typ, path, env)
		return
	}
	m.WriteString(fmt.Sprintf("## `%s[]`\n\n", path))
	m.paragraph(f.doc)
	list := "A list; each element has these settings."
	if env {
		list += " The whole list as YAML: " + code(envName(m.prefix, path)) + "."
	}
	if f.def != "" {
		list += " Default: " + code(f.def) + "."
	}
	m.paragraph(list)
	m.block(f.typ.Elem(), path+"[]", false)
}

func (m markdown) paragraph(text string) {
	if text != "" {
		m.WriteString(text + "\n\n")
	}
}

func typeName(t reflect.Type) string {
	switch t {
	case secretType:
		return "secret"
	case sizeType:
		return "size"
	case durationType:
		return "duration"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of text to " + typeName(t.Elem())
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "bool"
	case reflect.Float64:
		return "number"
	default:
		return "whole number"
	}
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s)
}
