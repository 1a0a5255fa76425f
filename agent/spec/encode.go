package spec

import (
	"bytes"
	"encoding/json"

	"go.yaml.in/yaml/v3"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Encode writes objects as YAML documents that [Decode] reads back to the same
// values, whatever their texts hold.
func Encode(objects ...*Object) ([]byte, error) {
	var out bytes.Buffer
	if len(objects) == 0 {
		return nil, nil // the library would not close what it did not open
	}
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, o := range objects {
		node, err := nodeOf(o)
		if err != nil {
			return nil, err
		}
		if err := encoder.Encode(node); err != nil {
			return nil, fault.Wrap(fault.Internal, "encode "+o.Ref().String(), err)
		}
	}
	return out.Bytes(), fault.Wrap(fault.Internal, "encode objects", encoder.Close())
}

// nodeOf goes through JSON, so that both notations have the same fields.
func nodeOf(o *Object) (*yaml.Node, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(o); err != nil {
		return nil, fault.Wrap(fault.Internal, "encode "+o.Ref().String(), err)
	}
	nodes, err := parseJSON(o.Ref().String(), text.Bytes())
	if err != nil {
		return nil, err
	}
	prettify(nodes[0])
	return nodes[0], nil
}

// prettify takes off the quotes where the text alone says that it is a text.
func prettify(n *yaml.Node) {
	n.Line, n.Column = 0, 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Style = textStyle(n.Value)
	}
	for _, child := range n.Content {
		prettify(child)
	}
}

func textStyle(text string) yaml.Style {
	var read yaml.Node
	if yaml.Unmarshal([]byte(text), &read) != nil || len(read.Content) != 1 {
		return yaml.DoubleQuotedStyle
	}
	plain := read.Content[0]
	if plain.Kind == yaml.ScalarNode && plain.Tag == "!!str" && plain.Style == 0 && plain.Value == text {
		return 0
	}
	return yaml.DoubleQuotedStyle
}

// Redact is o without what must not be shown: for a secret a copy with every
// value replaced by [Redacted], otherwise o itself.
func Redact(o *Object) *Object {
	s, is := o.Spec.(*SecretSpec)
	if !is {
		return o
	}
	shown := *o
	hidden := &SecretSpec{Data: make(map[string]string, len(s.Data))}
	for key := range s.Data {
		hidden.Data[key] = Redacted
	}
	shown.Spec = hidden
	return &shown
}

// Export is a redacted copy of o as a person would have written it: without
// what the store adds.
func Export(o *Object) *Object {
	exported := Redact(o).Clone()
	m := exported.Metadata
	exported.Metadata = Metadata{Tenant: m.Tenant, Name: m.Name, Labels: m.Labels}
	exported.Status = nil
	return exported
}
