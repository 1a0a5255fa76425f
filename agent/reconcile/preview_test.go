package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
)

// stepsOf are all steps of a preview, sorted: with which object a shared one is
// shown is no part of what would happen, nor is the uid of one that is new.
func stepsOf(planned []Planned, err error) []string {
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	var names []string // of newcomers, whose uids are drawn anew each time
	for _, p := range planned {
		if p.Before == nil {
			names = append(names, string(p.Object.Metadata.UID), "the new "+p.Object.Ref().String())
		}
	}
	var out []string
	for _, p := range planned {
		for _, s := range p.Plan.Steps {
			text := string(s.ID)
			if len(names) == 0 { // what a reason names, and where it stops, follows the order of uids
				text += ": " + s.Why
			}
			out = append(out, strings.NewReplacer(names...).Replace(text))
		}
	}
	slices.Sort(out)
	return out
}

func stopped(name string, gpus int) *spec.Object {
	o := instance(name, gpus)
	o.Spec.(*spec.InstanceSpec).State = spec.StateStopped
	return o
}

func openPort(port string) *spec.Object {
	return &spec.Object{Kind: spec.KindSecurityGroup, Metadata: spec.Metadata{Tenant: "acme", Name: "default"}, Spec: &spec.SecurityGroupSpec{
		Ingress: []spec.Rule{{Action: "accept", Protocol: "tcp", Ports: port, Remote: "0.0.0.0/0"}},
	}}
}

// A stop takes the instance's rules out of its VPC once it is down.
func TestPreviewOfAStopShowsTheVPCWithoutTheInstance(t *testing.T) {
	for name, row := range map[string]struct {
		others []*spec.Object
		want   string
	}{
		"with another instance": {[]*spec.Object{instance("b", 0)}, network.VerbLoad},
		"the last of its VPC":   {nil, network.VerbClose},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.run()
				defer b.halt()
				b.write(append(row.others, instance("a", 1))...)
				settle()
				planned, err := b.loop.Preview(t.Context(), []*spec.Object{stopped("a", 1)})
				if err != nil {
					t.Fatal(err)
				}
				shown := planned[0].Plan.Steps
				b.mu.Lock()
				b.log = nil
				b.mu.Unlock()
				b.write(stopped("a", 1))
				settle()
				var ids []plan.ID
				for _, s := range shown {
					ids = append(ids, s.ID)
				}
				if len(shown) == 0 || shown[len(shown)-1].Verb != row.want {
					t.Errorf("shown %v, want %s at the end", ids, row.want)
				}
				if !slices.Equal(ids, b.log) {
					t.Errorf("shown %v\ndone  %v", ids, b.log)
				}
			})
		})
	}
}

// What lanes at rest say is what a look at everything says, whatever happened and
// whatever is imagined, at every moment at which nothing moves.
func TestAPlanFromTheCacheIsThePlan(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		acts := rapid.SliceOfN(rapid.SampledFrom(actNames()), 1, 12).Draw(rt, "acts")
		waits := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, time.Minute}), len(acts), len(acts)).Draw(rt, "waits")
		imagined := rapid.SampledFrom([]string{"nothing", "a stop", "a group", "a newcomer"}).Draw(rt, "imagined")
		var differs string
		synctest.Test(t, func(t *testing.T) { differs = cacheDiffers(t, acts, waits, imagined) })
		if differs != "" {
			rt.Fatal(differs)
		}
	})
}

func cacheDiffers(t *testing.T, acts []string, waits []time.Duration, imagined string) string {
	b := newBench(t)
	b.run()
	defer b.halt()
	b.write(instance("a", 1), instance("b", 0))
	settle()
	objects := map[string][]*spec.Object{"a stop": {stopped("a", 1)}, "a group": {openPort("443")}, "a newcomer": {instance("z", 2)}}[imagined]
	for i, name := range acts {
		b.act(name)
		time.Sleep(waits[i])
		synctest.Wait()
		cached := stepsOf(b.loop.Preview(t.Context(), objects))
		fresh := stepsOf(b.loop.preview(t.Context(), objects, nil))
		if !slices.Equal(cached, fresh) {
			return fmt.Sprintf("after %v with %v\n cached %s\n fresh  %s", acts[:i+1], waits[:i+1], strings.Join(cached, "\n   "), strings.Join(fresh, "\n   "))
		}
	}
	return ""
}

func actNames() []string {
	return []string{"write a", "write b", "write c", "stop a", "start a", "restart b", "exit a", "exit b", "remove a", "remove b", "group", "fail create", "fail load", "fail stop", "agent"}
}

// act does one thing to the host; what is refused is refused.
func (b *bench) act(name string) {
	verb, object, _ := strings.Cut(name, " ")
	ref := spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: object}
	o, _ := b.store.Get(ref)
	var objects []*spec.Object
	switch verb {
	case "write":
		objects = []*spec.Object{instance(object, len(b.log)%3)}
	case "group":
		objects = []*spec.Object{openPort(fmt.Sprint(1000 + len(b.log)))}
	case "stop", "start", "restart":
		_, _, _ = b.loop.SetState(b.t.Context(), ref, verb, "test")
	case "remove":
		_, _ = b.loop.Delete(ref, 0, "test")
	case "fail":
		b.failNext(object)
	case "exit":
		if o != nil && b.runs(o.Metadata.UID) {
			b.exit(o.Metadata.UID, 1, time.Now())
			b.loop.TriggerInstance(o.Metadata.UID)
		}
	case "agent":
		b.halt()
		b.run()
	}
	if len(objects) > 0 {
		_, _ = b.loop.Write(b.t.Context(), objects, WriteOptions{Source: spec.SourceAPI, Actor: "test"})
	}
}

func (b *bench) runs(uid spec.UID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.containers[uid]
	return c != nil && c.Container.Task.Status == isolation.TaskRunning
}

// failNext has the next step of a verb fail on each object there is.
func (b *bench) failNext(verb string) {
	room := plan.Isolation
	if verb == network.VerbLoad {
		room = plan.Network
	}
	all, _ := b.store.All()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range all {
		b.fail[plan.MakeID(room, verb, string(o.Metadata.UID))] = fault.New(fault.Temporary, verb, "it was to fail")
	}
}

// A plan says what the lanes know; a verification reads the host, and from then on
// a plan says the same.
func TestVerifyFindsWhatThePlanCannotKnow(t *testing.T) {
	for name, tamper := range map[string]func(*bench, *spec.Object){
		"an instance's cgroup": func(b *bench, o *spec.Object) { b.containers[o.Metadata.UID].Cgroup.Program = isolation.ProgramNone },
		"a VPC's rules": func(b *bench, _ *spec.Object) {
			for _, r := range b.routers {
				r.Router = nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.run()
				defer b.halt()
				b.write(instance("a", 1))
				settle()
				b.mu.Lock()
				tamper(b, b.get("a"))
				b.mu.Unlock()
				if shown := stepsOf(b.loop.Preview(t.Context(), nil)); len(shown) > 0 {
					t.Errorf("a plan from the cache shows %v", shown)
				}
				found, err := b.loop.Verify(t.Context(), nil)
				if err != nil || len(found) == 0 {
					t.Errorf("a verification found %v, %v", found, err)
				}
				if shown := stepsOf(b.loop.Preview(t.Context(), nil)); len(shown) != len(found) {
					t.Errorf("after a verification that found %v a plan shows %v", found, shown)
				}
				time.Sleep(resync)
				settle()
				if found, err := b.loop.Verify(t.Context(), nil); err != nil || len(found) > 0 {
					t.Errorf("after a resync %v, %v", found, err)
				}
			})
		})
	}
}

func TestAPlanOfAHostAtRestLooksAtNothing(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 1), instance("b", 1))
		settle()
		before := b.looks()
		if shown := stepsOf(b.loop.Preview(t.Context(), nil)); len(shown) > 0 {
			t.Errorf("shown %v", shown)
		}
		if n := b.looks() - before; n > 0 {
			t.Errorf("%d looks at the host", n)
		}
		if _, err := b.loop.Verify(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if n := b.looks() - before; n != 3 {
			t.Errorf("a verification of two instances in one VPC looked %d times, want 3", n)
		}
	})
}

// looks counts observations of instances and VPCs.
func (b *bench) looks() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.looked
}
