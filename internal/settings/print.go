package settings

import (
	"io"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Print writes the settings in v, a struct or a pointer to one, as YAML that
// Load reads, except for the secrets: they are masked.
func Print(w io.Writer, v any) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(node(reflect.Indirect(reflect.ValueOf(v)))); err != nil {
		return err
	}
	return enc.Close()
}

func node(v reflect.Value) *yaml.Node {
	switch v.Kind() {
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range fieldsOf(v.Type()) {
			n.Content = append(n.Content, textNode(f.key), node(v.FieldByIndex(f.index)))
		}
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, node(v.Index(i)))
		}
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		texts := map[string]string{}
		for _, k := range v.MapKeys() {
			texts[k.String()] = scalarText(v.MapIndex(k))
		}
		for _, k := range slices.Sorted(maps.Keys(texts)) {
			n.Content = append(n.Content, textNode(k), textNode(texts[k]))
		}
		return n
	case reflect.String:
		return textNode(scalarText(v))
	default: // numbers, durations and sizes need no quotes
		return &yaml.Node{Kind: yaml.ScalarNode, Value: scalarText(v)}
	}
}

func textNode(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}
