package service

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// diff lists the fields of the specification and labels that differ, by path. A
// nil before is an object that is new. Values of secrets never show.
func diff(before, after *spec.Object) ([]api.Diff, error) {
	if before == after {
		return nil, nil
	}
	from, err := fieldsOf(before)
	if err != nil {
		return nil, err
	}
	to, err := fieldsOf(after)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(from)
	maps.Copy(all, to)
	var out []api.Diff
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if from[path] != to[path] {
			out = append(out, api.Diff{Path: path, From: shown(after, from[path]), To: shown(after, to[path])})
		}
	}
	return out, nil
}

func shown(o *spec.Object, value string) string {
	if o.Kind == spec.KindSecret && value != "" {
		return spec.Redacted
	}
	return value
}

// fieldsOf flattens what a person wrote of an object into paths and texts.
func fieldsOf(o *spec.Object) (map[string]string, error) {
	out := make(map[string]string)
	if o == nil {
		return out, nil
	}
	text, err := json.Marshal(map[string]any{"spec": o.Spec, "labels": o.Metadata.Labels})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.Ref(), err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("decode %s: %w", o.Ref(), err)
	}
	flatten(out, "spec", tree["spec"])
	flatten(out, "metadata.labels", tree["labels"])
	return out, nil
}

func flatten(out map[string]string, path string, value any) {
	switch v := value.(type) {
	case nil:
	case map[string]any:
		for key, inner := range v {
			flatten(out, path+"."+key, inner)
		}
	case []any:
		for i, inner := range v {
			flatten(out, path+"["+strconv.Itoa(i)+"]", inner)
		}
	default:
		out[path] = fmt.Sprint(v)
	}
}
