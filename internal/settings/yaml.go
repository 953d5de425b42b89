package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const maxFile = 1 << 20

// file reads the YAML file into the struct v.
func (l *loader) file(v reflect.Value, src Source) {
	if len(src.File) > maxFile {
		l.wrong(src.FileName, "", "the file is larger than %s", Size(maxFile))
		return
	}
	d := &decoder{l, func(line int) string { return fmt.Sprintf("%s:%d", src.FileName, line) }}
	if root := d.parse(src.File, ""); root != nil {
		d.block(v, root, "")
	}
}

// decoder puts YAML nodes into values and collects every mistake on the way.
// It goes as deep as the Go types do, never as deep as the input.
type decoder struct {
	*loader
	place func(line int) string
}

// parse returns the root of the only document in text, nil if there is none.
func (d *decoder) parse(text []byte, path string) *yaml.Node {
	var doc, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		line, problem := syntaxProblem(text, err)
		d.wrong(d.place(line), path, "%s", problem)
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		d.wrong(d.place(second.Line), path, "a second YAML document begins; only one is allowed")
	case !errors.Is(err, io.EOF):
		line, problem := syntaxProblem(text, err)
		d.wrong(d.place(line), path, "%s", problem)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	yamlAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)
)

// syntaxProblem says what the parser stumbled over and on which line. What
// looks like an unknown anchor may well be a secret that begins with "*" and
// is not repeated.
func syntaxProblem(text []byte, err error) (line int, problem string) {
	if m := yamlAnchor.FindStringSubmatch(err.Error()); m != nil {
		before, _, _ := bytes.Cut(text, []byte("*"+m[1]))
		return 1 + bytes.Count(before, []byte("\n")), `a value that begins with "*" must be quoted`
	}
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return 1, "not valid YAML"
	}
	line, _ = strconv.Atoi(m[1]) // "" for the first line
	return max(line, 1), "not valid YAML here or on the next lines: " + m[2]
}

// value puts n into v, which is anything that a field can be.
func (d *decoder) value(v reflect.Value, n *yaml.Node, path string, line int) {
	d.places[path] = d.place(line)
	switch {
	case v.Kind() == reflect.Struct:
		if !isNull(n) { // a key with everything below it commented out
			d.block(v, n, path)
		}
	case v.Kind() == reflect.Slice:
		d.list(v, n, path)
	case v.Kind() == reflect.Map:
		d.texts(v, n, path)
	default:
		d.scalar(v, n, path)
	}
}

// is reports whether n is of the kind wanted, free of anchors, aliases and
// explicit tags; all of those can swallow a part of an unquoted value.
func (d *decoder) is(kind yaml.Kind, n *yaml.Node, path, want string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.wrong(d.place(n.Line), path, "anchors and aliases are not supported; quote a value that begins with & or *")
	case n.Style&yaml.TaggedStyle != 0:
		d.wrong(d.place(n.Line), path, "tags are not supported; quote a value that begins with !")
	case isNull(n):
		d.wrong(d.place(n.Line), path, "has no value; leave it out to get its default")
	case n.Kind != kind:
		d.wrong(d.place(n.Line), path, "must be %s, not %s", want, kindName(n))
	default:
		return true
	}
	return false
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && n.Anchor == "" && n.Style&yaml.TaggedStyle == 0
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

func (d *decoder) scalar(v reflect.Value, n *yaml.Node, path string) {
	if !d.is(yaml.ScalarNode, n, path, "a single value") {
		return
	}
	if problem := setScalar(v, n.Value); problem != "" {
		d.wrong(d.place(n.Line), path, "%s", problem)
	}
}

func (d *decoder) list(v reflect.Value, n *yaml.Node, path string) {
	if !d.is(yaml.SequenceNode, n, path, "a list") {
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		e := list.Index(i)
		if e.Kind() == reflect.Struct {
			setDefaults(e)
		}
		d.value(e, c, element(path, i), c.Line)
	}
	v.Set(list)
}

func (d *decoder) texts(v reflect.Value, n *yaml.Node, path string) {
	if !d.is(yaml.MappingNode, n, path, "a mapping of names to texts") {
		return
	}
	m := reflect.MakeMap(v.Type())
	for i := 0; i < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		if !d.is(yaml.ScalarNode, k, path, "a mapping of names to texts") || !d.is(yaml.ScalarNode, c, join(path, k.Value), "text") {
			continue
		}
		key := reflect.ValueOf(k.Value).Convert(v.Type().Key())
		if m.MapIndex(key).IsValid() {
			d.wrong(d.place(k.Line), path, "the name %s is there twice", quote(k.Value))
			continue
		}
		d.places[join(path, k.Value)] = d.place(k.Line)
		text := reflect.New(v.Type().Elem()).Elem()
		if problem := setScalar(text, c.Value); problem != "" {
			d.wrong(d.place(c.Line), join(path, k.Value), "%s", problem)
		}
		m.SetMapIndex(key, text)
	}
	v.Set(m)
}

func (d *decoder) block(v reflect.Value, n *yaml.Node, path string) {
	if path == "" && isNull(n) || !d.is(yaml.MappingNode, n, path, "a mapping of settings") {
		return
	}
	fields := fieldsOf(v.Type())
	lines := map[string]int{} // where each key was first
	for i := 0; i < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		f := find(fields, k.Value)
		switch {
		case f == nil || k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0:
			d.wrong(d.place(k.Line), path, "%s", unknownKey(v, n, k, fields))
		case lines[f.key] != 0:
			d.wrong(d.place(k.Line), join(path, f.key), "is set twice, first on line %d", lines[f.key])
		default:
			lines[f.key] = k.Line
			d.value(v.FieldByIndex(f.index), c, join(path, f.key), k.Line)
		}
	}
}

func find(fields []field, key string) *field {
	for i := range fields {
		if fields[i].key == key {
			return &fields[i]
		}
	}
	return nil
}

// unknownKey names the key k of the mapping n, except where it may be a part
// of a secret: "{secret: a,b}" without quotes has the key "b".
func unknownKey(v reflect.Value, n, k *yaml.Node, fields []field) string {
	keys := keysOf(fields)
	if k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 {
		return "a key must be one of " + strings.Join(keys, ", ")
	}
	for _, f := range fields {
		if n.Style&yaml.FlowStyle != 0 && f.typ == secretType {
			return "an unknown key is here, or a value with a comma that needs quotes; known keys are " + strings.Join(keys, ", ")
		}
	}
	if h, ok := v.Addr().Interface().(hinter); ok {
		if hint := h.Hint(k.Value); hint != "" {
			return "unknown key " + quote(k.Value) + ": " + hint
		}
	}
	return "unknown key " + quote(k.Value) + didYouMean(k.Value, keys)
}

// hinter is a struct of settings that knows keys of other programs.
type hinter interface{ Hint(key string) string }
