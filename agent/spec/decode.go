package spec

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Limits of input, fixed by the contract.
const (
	MaxObject   = 1 << 20  // bytes of one object, in canonical JSON
	MaxDocument = 4 << 20  // bytes of one file or request
	MaxDir      = 64 << 20 // bytes of one folder of files
)

// envelope is an object before its kind is known.
type envelope struct {
	APIVersion string     `json:"apiVersion"`
	Kind       Kind       `json:"kind"`
	Metadata   Metadata   `json:"metadata"`
	Spec       *yaml.Node `json:"spec"`
	Status     any        `json:"status"` // named, never read: only the agent knows it
}

// located is an object and the place it was read from.
type located struct {
	object *Object
	place  string
}

// Decode reads all objects of a YAML or JSON text; a list of objects counts as
// its elements. name stands in error messages, each of which begins with
// "name:line:column". What it returns is syntactically right and checked field
// by field, without defaults.
//
// Metadata that only the store writes is dropped, except uid and generation: a
// caller who gives those back asks that nobody was faster ([Metadata]).
func Decode(name string, text []byte) ([]*Object, error) {
	found, err := decode(name, text)
	if err != nil {
		return nil, err
	}
	if err := refuseTwice(found); err != nil {
		return nil, err
	}
	return objectsOf(found), nil
}

// DecodeDir reads every *.yaml, *.yml and *.json directly in fsys, in the
// order of their names.
func DecodeDir(fsys fs.FS) ([]*Object, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "read folder of objects", err)
	}
	names, err := objectFiles(fsys, entries)
	if err != nil {
		return nil, err
	}
	var all []located
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, "read "+name, err)
		}
		found, err := decode(name, text)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if err := refuseTwice(all); err != nil {
		return nil, err
	}
	return objectsOf(all), nil
}

// objectFiles looks at sizes before anything is read, so that huge files cost
// nothing.
func objectFiles(fsys fs.FS, entries []fs.DirEntry) ([]string, error) {
	var names []string
	var total int64
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() || !isObjectFile(name) {
			continue
		}
		info, err := fs.Stat(fsys, name)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, "read "+name, err)
		}
		total += info.Size()
		switch {
		case !info.Mode().IsRegular():
			return nil, positioned(name, 1, 1, "is not a regular file")
		case info.Size() > MaxDocument:
			return nil, tooLong(name)
		case total > MaxDir:
			return nil, positioned(name, 1, 1, "the folder holds more than %s", Bytes(MaxDir))
		}
		names = append(names, name)
	}
	return names, nil
}

func isObjectFile(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name))
}

func tooLong(name string) error {
	return positioned(name, 1, 1, "is longer than %s", Bytes(MaxDocument)).
		WithHint("write the objects into several files")
}

func objectsOf(found []located) []*Object {
	objects := make([]*Object, len(found))
	for i, l := range found {
		objects[i] = l.object
	}
	return objects
}

func refuseTwice(found []located) error {
	seen := make(map[Ref]string, len(found))
	for _, l := range found {
		ref := l.object.Ref()
		if first, twice := seen[ref]; twice {
			return fault.New(fault.Invalid, l.place, "%s is there twice, first at %s", ref, first)
		}
		seen[ref] = l.place
	}
	return nil
}

func decode(name string, text []byte) ([]located, error) {
	if len(text) > MaxDocument {
		return nil, tooLong(name)
	}
	roots, err := parseNodes(name, text)
	if err != nil {
		return nil, err
	}
	var found []located
	for _, root := range flatten(roots) {
		f := &filler{name: name, where: map[string]*yaml.Node{}}
		o, err := f.input(root)
		if err != nil {
			return nil, err
		}
		found = append(found, located{o, fmt.Sprintf("%s:%d:%d", name, root.Line, root.Column)})
	}
	return found, nil
}

// flatten takes the elements of documents that are lists.
func flatten(roots []*yaml.Node) []*yaml.Node {
	var objects []*yaml.Node
	for _, root := range roots {
		if root.Kind == yaml.SequenceNode && root.Anchor == "" {
			objects = append(objects, root.Content...)
			continue
		}
		objects = append(objects, root)
	}
	return objects
}

// input decodes and checks one object that somebody wrote.
func (f *filler) input(root *yaml.Node) (*Object, error) {
	o, err := f.object(root)
	if err != nil {
		return nil, err
	}
	o.Metadata = Metadata{
		Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, Labels: o.Metadata.Labels,
		UID: o.Metadata.UID, Generation: o.Metadata.Generation,
	}
	if o.Kind == KindHost {
		setDefault(&o.Metadata.Name, HostName)
	}
	if p := check(o); p != nil {
		return nil, f.locate(p, o)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "encode "+o.Ref().String(), err)
	}
	if len(text) > MaxObject {
		return nil, f.fail(root, o.Ref().String(), "is longer than %s", Bytes(MaxObject))
	}
	return o, nil
}

// locate gives a problem the position of its field, or of the closest
// surrounding one that was written.
func (f *filler) locate(p *problem, o *Object) error {
	at := p.path
	for at != "" && f.where[at] == nil {
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	n := f.where[at]
	err := f.fail(n, o.label()+p.path, "%s", p.why)
	err.Kind, err.Hint = p.kind, p.hint
	return err
}

// label begins a message about o when it has a name worth saying.
func (o *Object) label() string {
	if o.Metadata.Name == "" {
		return ""
	}
	return o.Ref().String() + ": "
}

// object decodes the envelope, then the specification by its kind.
func (f *filler) object(root *yaml.Node) (*Object, error) {
	var e envelope
	if f.where != nil {
		f.where[""] = root
	}
	if err := f.fillEnvelope(root, &e); err != nil {
		return nil, err
	}
	s, err := f.newSpec(root, e.Kind)
	if err != nil {
		return nil, err
	}
	if e.APIVersion == "" {
		e.APIVersion = APIVersion
	}
	if e.APIVersion != APIVersion {
		return nil, f.fail(f.at("apiVersion", root), "apiVersion", "%s is unknown, the only one is %q", quote(e.APIVersion), APIVersion)
	}
	o := &Object{APIVersion: e.APIVersion, Kind: e.Kind, Metadata: e.Metadata, Spec: s}
	if e.Spec != nil {
		if err := f.fill(e.Spec, "spec", reflect.ValueOf(s).Elem()); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (f *filler) at(path string, otherwise *yaml.Node) *yaml.Node {
	if n := f.where[path]; n != nil {
		return n
	}
	return otherwise
}

func (f *filler) fillEnvelope(root *yaml.Node, e *envelope) error {
	names, _ := fieldsOf(reflect.TypeFor[envelope]())
	if err := f.plain(root, ""); err != nil {
		return err
	}
	return f.eachPair(root, "", func(key, value *yaml.Node) error {
		switch key.Value {
		case "apiVersion":
			return f.fill(value, key.Value, reflect.ValueOf(&e.APIVersion).Elem())
		case "kind":
			return f.fill(value, key.Value, reflect.ValueOf(&e.Kind).Elem())
		case "metadata":
			return f.fill(value, key.Value, reflect.ValueOf(&e.Metadata).Elem())
		case "spec":
			e.Spec = value
			return nil
		case "status":
			return nil
		}
		return f.unknown(key, "", names)
	})
}

// newSpec makes the empty specification of a kind.
func (f *filler) newSpec(root *yaml.Node, kind Kind) (Spec, error) {
	if s := NewSpec(kind); s != nil {
		return s, nil
	}
	if kind == "" {
		return nil, f.fail(root, "", "has no kind").WithHint("known: %s", kindList())
	}
	why := "unknown kind " + quote(string(kind))
	if near := Nearest(string(kind), kindNames()); near != "" {
		why += ", the nearest is " + quote(near)
	}
	return nil, f.fail(f.at("kind", root), "kind", "%s", why).WithHint("known: %s", kindList())
}

// UnmarshalJSON reads an object as the agent wrote it, metadata and status
// included. Unknown fields are refused, except in the status: an older command
// line understands a newer agent.
func (o *Object) UnmarshalJSON(data []byte) error {
	roots, err := parseJSON("json", data)
	if err != nil {
		return err
	}
	if len(roots) != 1 {
		return positioned("json", 1, 1, "is not one object")
	}
	f := &filler{name: "json"}
	read, err := f.object(roots[0])
	if err != nil {
		return err
	}
	var seen struct {
		Status *Status `json:"status"`
	}
	if err := json.Unmarshal(data, &seen); err != nil {
		return fault.Wrap(fault.Invalid, "read status of "+read.Ref().String(), err)
	}
	read.Status = seen.Status
	*o = *read
	return nil
}

// UnmarshalStored reads an object from the state file, where a newer version
// may have written fields that this one does not know: they are left out.
func (o *Object) UnmarshalStored(data []byte) error {
	var e struct {
		APIVersion string          `json:"apiVersion"`
		Kind       Kind            `json:"kind"`
		Metadata   Metadata        `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return fault.Wrap(fault.Internal, "read stored object", err)
	}
	s := NewSpec(e.Kind)
	if s == nil {
		return fault.New(fault.Unsupported, "read stored object", "unknown kind %s", quote(string(e.Kind)))
	}
	if err := json.Unmarshal(e.Spec, s); err != nil {
		return fault.Wrap(fault.Internal, "read stored "+e.Kind.Lower(), err)
	}
	*o = Object{APIVersion: e.APIVersion, Kind: e.Kind, Metadata: e.Metadata, Spec: s}
	return nil
}
