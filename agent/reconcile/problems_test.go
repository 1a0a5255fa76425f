package reconcile

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/network"
)

// defaultGroup is the default security group of acme with this rule alone.
func defaultGroup(rule spec.Rule) *spec.Object {
	return &spec.Object{Kind: spec.KindSecurityGroup, Metadata: spec.Metadata{Tenant: "acme", Name: "default"},
		Spec: &spec.SecurityGroupSpec{Ingress: []spec.Rule{rule}}}
}

func closing() spec.Rule { return spec.Rule{Action: "drop", Protocol: "all", Remote: "0.0.0.0/0"} }

func opening() spec.Rule { return spec.Rule{Action: "accept", Protocol: "all", Remote: "0.0.0.0/0"} }

// change writes one object and gives the change that was begun.
func (b *bench) change(o *spec.Object) string {
	b.t.Helper()
	out, err := b.loop.Write(b.t.Context(), []*spec.Object{o}, WriteOptions{Source: spec.SourceAPI, Actor: "test"})
	if err != nil {
		b.t.Fatal(err)
	}
	if out[0].Change == "" {
		b.t.Fatalf("a write of %s is nothing to wait for", o.Ref())
	}
	return out[0].Change
}

func (b *bench) ended(id string, want store.ChangeState, says string) {
	b.t.Helper()
	ch, err := b.loop.Change(id)
	if err != nil || ch.State != want || !strings.Contains(ch.Error, says) {
		b.t.Errorf("the change is %s %q (%v), want %s saying %q", ch.State, ch.Error, err, want, says)
	}
}

func (b *bench) vpcObject() *spec.Object {
	b.t.Helper()
	o, err := b.store.Get(spec.Ref{Kind: spec.KindNetwork, Tenant: "acme", Name: "default"})
	if err != nil {
		b.t.Fatal(err)
	}
	return o
}

// failLoad lets the next load of the VPC's rules fail.
func (b *bench) failLoad(err error) {
	id := plan.MakeID(plan.Network, network.VerbLoad, string(b.vpcObject().Metadata.UID))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail[id] = err
}

func TestARuleThatDoesNotLoadDoesNotLookClosed(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 0), defaultGroup(opening()))
		settle()
		if c := b.vpcObject().Status.Conditions[0]; c.Type != "Ready" || !c.Status {
			t.Fatalf("the VPC of a running instance: %+v", c)
		}
		b.failLoad(fault.New(fault.Internal, "load rules", "the kernel says no"))
		id := b.change(defaultGroup(closing()))
		synctest.Wait()
		b.ended(id, store.ChangeFailed, "the kernel says no")
		found := b.loop.Problems()
		if len(found) != 1 || found[0].Name != "network acme/default" || !strings.Contains(found[0].Err.Error(), "the kernel says no") {
			t.Errorf("problems %+v", found)
		}
		if s := b.vpcObject().Status; s.Phase != spec.PhaseFailed || s.Conditions[0].Status || !strings.Contains(s.Conditions[0].Message, "the kernel says no") {
			t.Errorf("the VPC's status: %+v", s)
		}
		settle() // the lane tries again
		if found := b.loop.Problems(); len(found) != 0 {
			t.Errorf("problems that have passed: %+v", found)
		}
		if s := b.vpcObject().Status; s.Phase != spec.PhaseRunning || !s.Conditions[0].Status {
			t.Errorf("the VPC's status: %+v", s)
		}
	})
}

func TestAChangeOfRulesEndsOnceTheyAreInForce(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		lab := &spec.Object{Kind: spec.KindNetwork, Metadata: spec.Metadata{Tenant: "acme", Name: "lab"}, Spec: &spec.NetworkSpec{CIDR: "10.9.0.0/16"}}
		b.write(instance("a", 0), lab, defaultGroup(opening()))
		settle()
		b.failLoad(fault.New(fault.Temporary, "load rules", "not now"))
		id := b.change(defaultGroup(closing()))
		synctest.Wait()
		b.ended(id, store.ChangeRunning, "") // in force in lab alone
		settle()
		b.ended(id, store.ChangeDone, "")
		lab.Spec = &spec.NetworkSpec{CIDR: "10.8.0.0/16"}
		id = b.change(lab)
		settle()
		b.ended(id, store.ChangeDone, "")
	})
}

// An agent that dies between a write and the load leaves a change that the next
// agent's lanes end.
func TestAChangeOfRulesEndsUnderTheNextAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		b.write(instance("a", 0), defaultGroup(opening()))
		settle()
		b.halt()
		id := b.change(defaultGroup(closing()))
		b.run()
		defer b.halt()
		settle()
		b.ended(id, store.ChangeDone, "")
	})
}

func TestTasksTellOfTheirProblems(t *testing.T) {
	b := newBench(t)
	b.loop = New(Deps{Store: b.store, Now: time.Now, Log: quiet()})
	b.loop.NoteProblem("metrics", errors.New("the port is taken"))
	if found := b.loop.Problems(); len(found) != 1 || found[0].Name != "metrics" || !found[0].Task {
		t.Errorf("problems %+v", found)
	}
	b.loop.NoteProblem("metrics", nil)
	if found := b.loop.Problems(); len(found) != 0 {
		t.Errorf("problems %+v", found)
	}
}

// A changed rule that is in force is counted once, and nothing else is.
func TestChangedRulesAreCounted(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 0), defaultGroup(opening()))
		settle()
		before := b.rules.Load()
		b.write(defaultGroup(closing()))
		settle()
		if got := b.rules.Load() - before; got != 1 {
			t.Errorf("one changed rule was counted %d times", got)
		}
		b.loop.TriggerAll()
		settle()
		if got := b.rules.Load() - before; got != 1 {
			t.Errorf("a look at which nothing changed was counted")
		}
	})
}
