package spec

import (
	"bytes"

	"go.yaml.in/yaml/v3"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// YAML rewrites one JSON value in the notation of [Encode].
func YAML(text []byte) ([]byte, error) {
	nodes, err := parseJSON("value", text)
	if err != nil {
		return nil, err
	}
	if len(nodes) != 1 {
		return nil, fault.New(fault.Internal, "encode value", "is not one JSON value")
	}
	prettify(nodes[0])
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(nodes[0]); err != nil {
		return nil, fault.Wrap(fault.Internal, "encode value", err)
	}
	return out.Bytes(), fault.Wrap(fault.Internal, "encode value", encoder.Close())
}
