package spec

import (
	"encoding"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// filler copies a node tree into Go values, strictly: every name must be a
// field, every scalar of the field's type. It remembers where each field was,
// so that later checks can point at it.
type filler struct {
	name  string
	where map[string]*yaml.Node // nil where nobody will ask
}

func (f *filler) fail(n *yaml.Node, path, format string, args ...any) *fault.Error {
	problem := positioned(f.name, n.Line, n.Column, format, args...)
	if path != "" {
		problem.What += ": " + path
	}
	return problem
}

// fill sets target, which is addressable, from n.
func (f *filler) fill(n *yaml.Node, path string, target reflect.Value) error {
	if f.where != nil {
		f.where[path] = n
	}
	if err := f.plain(n, path); err != nil {
		return err
	}
	if isNull(n) {
		return f.fillNull(n, path, target)
	}
	switch target.Addr().Interface().(type) {
	case *EnvValue:
		return f.fillEnv(n, path, target)
	case *time.Time:
		return f.fillTime(n, path, target)
	case encoding.TextUnmarshaler:
		return f.fillText(n, path, target)
	}
	switch target.Kind() {
	case reflect.Pointer:
		target.Set(reflect.New(target.Type().Elem()))
		return f.fill(n, path, target.Elem())
	case reflect.Struct:
		return f.fillStruct(n, path, target)
	case reflect.Map:
		return f.fillMap(n, path, target)
	case reflect.Slice:
		return f.fillSlice(n, path, target)
	default:
		return f.fillScalar(n, path, target)
	}
}

// plain refuses what YAML can do and a resource never needs: anchors and
// aliases (which can blow a small text up) and explicit tags.
func (f *filler) plain(n *yaml.Node, path string) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return f.fail(n, path, "anchors and aliases are not accepted; write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		return f.fail(n, path, "the tag %s is not accepted", quote(n.Tag))
	}
	return nil
}

// fillNull leaves collections empty; a scalar without a value is a slip.
func (f *filler) fillNull(n *yaml.Node, path string, target reflect.Value) error {
	switch target.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Pointer:
		return nil
	}
	return f.fail(n, path, `has no value; leave the line out, or write ""`)
}

func (f *filler) fillStruct(n *yaml.Node, path string, target reflect.Value) error {
	names, fields := fieldsOf(target.Type())
	return f.eachPair(n, path, func(key, value *yaml.Node) error {
		at := join(path, key.Value)
		i := slices.Index(names, key.Value)
		if i >= 0 {
			return f.fill(value, at, target.FieldByIndex(fields[i]))
		}
		return f.unknown(key, path, names)
	})
}

// unknown names the nearest known field and, as a hint, all of them.
func (f *filler) unknown(key *yaml.Node, path string, names []string) error {
	why := "unknown field " + quote(key.Value)
	if near := Nearest(key.Value, names); near != "" {
		why += ", the nearest is " + quote(near)
	}
	return f.fail(key, path, "%s", why).WithHint("known here: %s", strings.Join(names, ", "))
}

// eachPair walks a mapping whose keys are plain and unique strings.
func (f *filler) eachPair(n *yaml.Node, path string, visit func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return f.fail(n, path, "is %s, not a mapping", describe(n))
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if err := f.plain(key, path); err != nil {
			return err
		}
		if key.Kind != yaml.ScalarNode || isNull(key) {
			return f.fail(key, path, "a key is %s, not a name", describe(key))
		}
		if err := f.clean(key, path); err != nil {
			return err
		}
		if seen[key.Value] {
			return f.fail(key, path, "%s is there twice", quote(key.Value))
		}
		seen[key.Value] = true
		if err := visit(key, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) fillMap(n *yaml.Node, path string, target reflect.Value) error {
	filled := reflect.MakeMap(target.Type())
	err := f.eachPair(n, path, func(key, value *yaml.Node) error {
		if isNull(value) {
			return f.fail(value, join(path, key.Value), `has no value; write "" for an empty one`)
		}
		element := reflect.New(target.Type().Elem()).Elem()
		if err := f.fill(value, join(path, key.Value), element); err != nil {
			return err
		}
		filled.SetMapIndex(reflect.ValueOf(key.Value), element)
		return nil
	})
	if filled.Len() > 0 {
		target.Set(filled)
	}
	return err
}

func (f *filler) fillSlice(n *yaml.Node, path string, target reflect.Value) error {
	if n.Kind != yaml.SequenceNode {
		return f.fail(n, path, "is %s, not a list", describe(n))
	}
	if len(n.Content) == 0 {
		return nil
	}
	filled := reflect.MakeSlice(target.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		if isNull(item) {
			return f.fail(item, at, "is empty")
		}
		if err := f.fill(item, at, filled.Index(i)); err != nil {
			return err
		}
	}
	target.Set(filled)
	return nil
}

func (f *filler) fillText(n *yaml.Node, path string, target reflect.Value) error {
	text, err := f.text(n, path)
	if err != nil {
		return err
	}
	if err := target.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		return f.fail(n, path, "%w", err).WithHint("%s", fault.HintOf(err))
	}
	return nil
}

func (f *filler) fillTime(n *yaml.Node, path string, target reflect.Value) error {
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return f.fail(n, path, "is %s, not a time like 2006-01-02T15:04:05Z", describe(n))
	}
	target.Set(reflect.ValueOf(t.UTC()))
	return nil
}

func (f *filler) fillEnv(n *yaml.Node, path string, target reflect.Value) error {
	if n.Kind == yaml.MappingNode {
		var ref secretRef
		if err := f.fillStruct(n, path, reflect.ValueOf(&ref).Elem()); err != nil {
			return err
		}
		if ref.Secret == "" {
			return f.fail(n, path, "names no secret").WithHint("write {secret: name/key}")
		}
		target.Set(reflect.ValueOf(EnvValue{Secret: ref.Secret}))
		return nil
	}
	text, err := f.text(n, path)
	target.Set(reflect.ValueOf(EnvValue{Value: text}))
	return err
}

func (f *filler) fillScalar(n *yaml.Node, path string, target reflect.Value) error {
	if target.Kind() == reflect.String {
		text, err := f.text(n, path)
		target.SetString(text)
		return err
	}
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		return f.fail(n, path, "is %s, not a %s", describe(n), nounOf(target.Kind()))
	}
	if !setScalar(n, target) {
		return f.fail(n, path, "%s is not a %s", quote(n.Value), nounOf(target.Kind()))
	}
	return nil
}

func setScalar(n *yaml.Node, target reflect.Value) bool {
	bits := 64
	if target.Kind() != reflect.Bool {
		bits = target.Type().Bits()
	}
	switch target.Kind() {
	case reflect.Bool:
		target.SetBool(n.Value == "true")
		return n.Value == "true" || n.Value == "false"
	case reflect.Int, reflect.Int64:
		v, err := strconv.ParseInt(n.Value, 10, bits)
		target.SetInt(v)
		return err == nil
	case reflect.Uint16, reflect.Uint64:
		v, err := strconv.ParseUint(n.Value, 10, bits)
		target.SetUint(v)
		return err == nil
	case reflect.Float64:
		v, err := strconv.ParseFloat(n.Value, bits)
		target.SetFloat(v)
		return err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
	}
	return false
}

func nounOf(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	}
	return "whole number"
}

// text gives a scalar as written. Numbers are taken by their letters (a port
// list of 22, a user of 1000); true, false and dates would be guesses.
func (f *filler) text(n *yaml.Node, path string) (string, error) {
	if n.Kind != yaml.ScalarNode {
		return "", f.fail(n, path, "is %s, not a text", describe(n))
	}
	switch n.Tag {
	case "!!str", "!!int", "!!float":
		return n.Value, f.clean(n, path)
	}
	// Without the value: it may be a password that happens to read as a date.
	return "", f.fail(n, path, "is %s, not a text", describe(n)).WithHint("put it in quotes")
}

// clean refuses control characters: they forge lines in logs and terminals.
func (f *filler) clean(n *yaml.Node, path string) error {
	i := strings.IndexFunc(n.Value, isControl)
	if i < 0 {
		return nil
	}
	r := []rune(n.Value[i:])[0]
	return f.fail(n, path, "has the control character %U", r)
}

func isControl(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r'
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a date"
	}
	return "a text"
}

// fieldsOf lists a struct's names on the wire. The json tags are the contract.
func fieldsOf(t reflect.Type) (names []string, index [][]int) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
			index = append(index, t.Field(i).Index)
		}
	}
	return names, index
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
