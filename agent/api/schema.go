package api

import (
	"encoding"
	"encoding/json"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// schemas turns Go types into JSON schemas, the way encoding/json writes them.
// Named structs become components that refer to each other.
type schemas struct {
	known map[string]any
}

func newSchemas() *schemas { return &schemas{known: map[string]any{}} }

// of is the schema of a type, as a reference where it has a name.
func (s *schemas) of(t reflect.Type) map[string]any {
	if t.Kind() == reflect.Pointer {
		return s.of(t.Elem())
	}
	if special := s.special(t); special != nil {
		return special
	}
	switch t.Kind() {
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.named(t)
	}
	return map[string]any{} // an interface: any value
}

// special are the types that write themselves.
func (s *schemas) special(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[spec.Object](), reflect.TypeFor[ObjectBody]():
		return s.object()
	case reflect.TypeFor[spec.EnvValue]():
		reference := map[string]any{"type": "object", "required": []string{"secret"},
			"properties": map[string]any{"secret": map[string]any{"type": "string"}}}
		return map[string]any{"oneOf": []any{map[string]any{"type": "string"}, reference}}
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) || isQuantity(t) {
		return map[string]any{"type": "string"}
	}
	return nil
}

// isQuantity finds types whose JSON is a string though their kind is a number.
func isQuantity(t reflect.Type) bool {
	if !t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Kind() == reflect.Struct {
		return false
	}
	text, err := json.Marshal(reflect.Zero(t).Interface())
	return err == nil && len(text) > 0 && text[0] == '"'
}

// object is one of the kinds: the envelope around each kind's own specification.
func (s *schemas) object() map[string]any {
	const name = "Object"
	if s.known[name] == nil {
		s.known[name] = map[string]any{} // ends the recursion
		var kinds []any
		for _, kind := range spec.Kinds() {
			kinds = append(kinds, s.kind(kind))
		}
		s.known[name] = map[string]any{"oneOf": kinds}
	}
	return reference(name)
}

func (s *schemas) kind(kind spec.Kind) map[string]any {
	s.known[string(kind)] = map[string]any{
		"type":     "object",
		"required": []string{"apiVersion", "kind", "metadata", "spec"},
		"properties": map[string]any{
			"apiVersion": map[string]any{"const": spec.APIVersion},
			"kind":       map[string]any{"const": string(kind)},
			"metadata":   s.of(reflect.TypeFor[spec.Metadata]()),
			"spec":       s.of(reflect.TypeOf(spec.NewSpec(kind))),
			"status":     s.of(reflect.TypeFor[spec.Status]()),
		},
		"additionalProperties": false,
	}
	return reference(string(kind))
}

func (s *schemas) named(t reflect.Type) map[string]any {
	name := schemaName(t)
	if s.known[name] == nil {
		s.known[name] = map[string]any{} // ends the recursion of types that hold themselves
		s.known[name] = s.structure(t)
	}
	return reference(name)
}

func reference(name string) map[string]any {
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

func (s *schemas) structure(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		name, always := jsonField(f)
		if name == "" || len(f.Index) > 1 && !promoted(t, f) {
			continue
		}
		schema := s.of(f.Type)
		if nullable(f.Type) && always {
			schema = map[string]any{"oneOf": []any{schema, map[string]any{"type": "null"}}}
		}
		properties[name] = schema
		if always {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

// nullable types are written as null when nothing is there.
func nullable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return true
	}
	return false
}

// jsonField is a field's name on the wire, "" for none, and whether it is
// always written.
func jsonField(f reflect.StructField) (name string, always bool) {
	if !f.IsExported() || f.Anonymous {
		return "", false
	}
	tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	if tag == "-" {
		return "", false
	}
	if tag == "" {
		tag = f.Name
	}
	return tag, !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero")
}

// promoted says whether every struct on the way to the field is embedded without a name.
func promoted(t reflect.Type, f reflect.StructField) bool {
	for i := range f.Index[:len(f.Index)-1] {
		if outer := t.FieldByIndex(f.Index[:i+1]); !outer.Anonymous || outer.Tag.Get("json") != "" {
			return false
		}
	}
	return true
}

// schemaName is the type's own name; a list is called by its items, and what
// comes from another package than this and spec is set apart by its name.
func schemaName(t reflect.Type) string {
	if items, ok := t.FieldByName("Items"); ok && strings.HasPrefix(t.Name(), "List[") {
		item := items.Type.Elem()
		if item.Kind() == reflect.Pointer {
			item = item.Elem()
		}
		return schemaName(item) + "List"
	}
	switch base := path.Base(t.PkgPath()); base {
	case "api", "spec":
		return t.Name()
	case "gpu":
		return "GPU" + t.Name()
	default:
		return strings.ToUpper(base[:1]) + base[1:] + t.Name()
	}
}
