package reconcile

import (
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// A security group or a subnet has no lane: it takes effect through the VPCs of
// its tenant. A change of one has come to its end once each of them has run since,
// and has failed with the first of them that fails: rules that a person closed and
// the kernel did not take must not look closed.

// followed says whether a change of an object has an end that can be waited for.
func (l *Loop) followed(o *spec.Object) bool {
	switch o.Kind {
	case spec.KindInstance:
		return true
	case spec.KindTenant:
		return o.Metadata.DeletedAt != nil
	case spec.KindNetwork:
		return o.Metadata.DeletedAt == nil
	case spec.KindSecurityGroup, spec.KindSubnet:
		return o.Metadata.DeletedAt == nil && len(l.networksOf(o.Metadata.Tenant)) > 0
	}
	return false
}

func (l *Loop) networksOf(tenant string) []spec.UID {
	networks, err := l.Store.List(spec.KindNetwork, tenant)
	if err != nil {
		l.Log.Error("list networks", "tenant", tenant, "error", err)
	}
	uids := make([]spec.UID, len(networks))
	for i, o := range networks {
		uids[i] = o.Metadata.UID
	}
	return uids
}

// passage is a change of an object without a lane.
type passage struct {
	change string
	uid    spec.UID
	tenant string
}

// through are the changes under way that end through VPCs.
func (c *changes) through() []passage {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []passage
	for uid, ch := range c.open {
		if ch.Object.Kind == spec.KindSecurityGroup || ch.Object.Kind == spec.KindSubnet {
			out = append(out, passage{ch.ID, uid, ch.Object.Tenant})
		}
	}
	return out
}

// passed notes that a change is in force in a VPC, and says whether it is in all.
func (c *changes) passed(p passage, vpc spec.UID, all []spec.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.open[p.uid]; ch == nil || ch.ID != p.change {
		return false
	}
	done := c.inForce[p.change]
	if done == nil {
		done = make(map[spec.UID]bool)
		c.inForce[p.change] = done
	}
	done[vpc] = true
	return !slices.ContainsFunc(all, func(uid spec.UID) bool { return !done[uid] })
}

// pass tells the changes that were under way when a lane's run began how it ended.
func (l *Loop) pass(asked []passage, key string, err error) {
	vpc, _ := strings.CutPrefix(key, vpcLane)
	for _, p := range asked {
		all := l.networksOf(p.tenant)
		rec := l.changes.recorderOf(&spec.Object{Metadata: spec.Metadata{UID: p.uid}}, p.change)
		switch mine := slices.Contains(all, spec.UID(vpc)); {
		case mine && err != nil:
			rec.finish(err)
		case l.changes.passed(p, spec.UID(vpc), all):
			rec.finish(nil)
		}
	}
}
