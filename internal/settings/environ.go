package settings

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// environ reads the variables that begin with the prefix into the struct v.
func (l *loader) environ(v reflect.Value, src Source) {
	if src.Prefix == "" {
		return
	}
	given := map[string]string{}
	for _, entry := range src.Environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, src.Prefix) {
			given[name] = value
		}
	}
	known := map[string]bool{}
	walkLeaves(v, "", func(fv reflect.Value, path string) {
		name := envName(src.Prefix, path)
		if known[name] {
			panic("settings: two settings share the variable " + name)
		}
		known[name] = true
		if text, ok := given[name]; ok {
			l.forget(path)
			l.text(fv, text, name, path)
		}
	})
	names := slices.Sorted(maps.Keys(known))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] {
			l.wrong(name, "", "unknown variable%s%s", didYouMean(name, names), serviceLinkHint(name, src.Prefix))
		}
	}
}

// walkLeaves calls visit for everything in v that has a variable: all but blocks.
func walkLeaves(v reflect.Value, path string, visit func(fv reflect.Value, path string)) {
	for _, f := range fieldsOf(v.Type()) {
		fv, at := v.FieldByIndex(f.index), join(path, f.key)
		if f.typ.Kind() == reflect.Struct {
			walkLeaves(fv, at, visit)
		} else {
			visit(fv, at)
		}
	}
}

// envName is the variable for path: "redis.address" is MINIGATE_REDIS_ADDRESS.
func envName(prefix, path string) string {
	return prefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// serviceLinkHint recognises the variables that Kubernetes gives every pod
// beside a Service whose name is our prefix.
func serviceLinkHint(name, prefix string) string {
	rest := strings.TrimPrefix(name, prefix)
	if strings.HasPrefix(rest, "SERVICE_") || rest == "PORT" || strings.HasPrefix(rest, "PORT_") {
		return " (where Kubernetes sets it for a Service of that name: enableServiceLinks: false in the pod)"
	}
	return ""
}

// forget drops the places below path: the file's list gives way to another.
func (l *loader) forget(path string) {
	maps.DeleteFunc(l.places, func(p, _ string) bool {
		return strings.HasPrefix(p, path+"[") || strings.HasPrefix(p, path+".")
	})
}

// text reads a variable or a default into v. Lists and mappings are YAML
// ("[a, b]"); a list of plain values may also be "a,b". Empty text is an empty
// list or mapping.
func (l *loader) text(v reflect.Value, text, place, path string) {
	l.places[path] = place
	isList := v.Kind() == reflect.Slice
	switch {
	case !isList && v.Kind() != reflect.Map:
		if problem := setScalar(v, text); problem != "" {
			l.wrong(place, path, "%s", problem)
		}
	case strings.TrimSpace(text) == "":
		v.SetZero()
	case isList && !isBlockList(v.Type()) && !strings.HasPrefix(strings.TrimSpace(text), "["):
		l.split(v, text, place, path)
	default:
		d := &decoder{l, func(int) string { return place }}
		if root := d.parse([]byte(text), path); root != nil {
			d.value(v, root, path, 0)
		}
	}
}

func (l *loader) split(v reflect.Value, text, place, path string) {
	parts := strings.Split(text, ",")
	list := reflect.MakeSlice(v.Type(), len(parts), len(parts))
	for i, part := range parts {
		if problem := setScalar(list.Index(i), strings.TrimSpace(part)); problem != "" {
			l.wrong(place, element(path, i), "%s", problem)
		}
	}
	v.Set(list)
}
