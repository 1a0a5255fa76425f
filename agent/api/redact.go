package api

import (
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// redact takes secrets out of an answer. It is called at the one place where
// answers are encoded, so that no handler can forget it. What the backend gave
// stays untouched: it may be the stored value itself.
func redact(answer any) any {
	switch a := answer.(type) {
	case *spec.Object:
		return redactObject(a)
	case List[*spec.Object]:
		items := make([]*spec.Object, len(a.Items))
		for i, o := range a.Items {
			items[i] = redactObject(o)
		}
		return List[*spec.Object]{Items: items}
	case ApplyResult:
		return redactApplied(a)
	case PlanResult:
		return redactPlan(a)
	}
	return answer
}

func redactObject(o *spec.Object) *spec.Object {
	if o == nil {
		return nil
	}
	secret, ok := o.Spec.(*spec.SecretSpec)
	if !ok {
		return o
	}
	hidden := make(map[string]string, len(secret.Data))
	for key := range secret.Data {
		hidden[key] = spec.Redacted
	}
	copied := *o
	copied.Spec = &spec.SecretSpec{Data: hidden}
	return &copied
}

func redactApplied(a ApplyResult) ApplyResult {
	objects := make([]Applied, len(a.Objects))
	for i, one := range a.Objects {
		objects[i] = Applied{Object: redactObject(one.Object), Action: one.Action}
	}
	a.Objects = objects
	return a
}

func redactPlan(p PlanResult) PlanResult {
	objects := make([]PlannedObject, len(p.Objects))
	for i, one := range p.Objects {
		if one.Object.Kind == spec.KindSecret {
			one.Diffs = redactDiffs(one.Diffs)
		}
		objects[i] = one
	}
	return PlanResult{Objects: objects}
}

// redactDiffs keeps that a value differs and hides both values.
func redactDiffs(diffs []Diff) []Diff {
	hidden := make([]Diff, len(diffs))
	for i, d := range diffs {
		if strings.HasPrefix(d.Path, "spec.data") {
			d.From, d.To = hide(d.From), hide(d.To)
		}
		hidden[i] = d
	}
	return hidden
}

func hide(value string) string {
	if value == "" {
		return ""
	}
	return spec.Redacted
}
