package reconcile

import (
	"context"
	"errors"
	"slices"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// WriteFiles makes exactly these objects the ones that files own, in one
// decision: they are stored, and what files owned before and no longer name is
// deleted. What others stand on stays, and the error says so.
func (l *Loop) WriteFiles(ctx context.Context, objects []*spec.Object) error {
	l.admit.Lock()
	defer l.admit.Unlock()
	before, err := l.Store.All()
	if err != nil {
		return err
	}
	drop, stays := droppable(before, objects)
	if _, err := l.write(ctx, objects, drop, WriteOptions{Source: spec.SourceFile, Actor: "spec.d"}); err != nil {
		return err
	}
	l.lanes.trigger(laneSweep)
	return stays
}

// droppable is what files owned and these objects no longer name, without what
// is used by anything that stays.
func droppable(before, objects []*spec.Object) (drop []*spec.Object, stays error) {
	staying := slices.Clone(objects)
	for _, o := range before {
		switch {
		case o.Metadata.DeletedAt != nil || slices.ContainsFunc(objects, sameAs(o)):
		case o.Metadata.Source == spec.SourceFile:
			drop = append(drop, o)
		default:
			staying = append(staying, o)
		}
	}
	for i := 0; i < len(drop); i++ {
		user := slices.IndexFunc(staying, func(o *spec.Object) bool { return uses(o, drop[i].Ref()) })
		if user < 0 {
			continue
		}
		stays = errors.Join(stays, usedFault(drop[i].Ref(), staying[user]))
		staying = append(staying, drop[i])
		drop = slices.Delete(drop, i, i+1)
		i = -1 // others may stand on this one
	}
	return drop, stays
}
