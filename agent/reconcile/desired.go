package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
)

// decision is what an instance should be now, and why.
type decision struct {
	want isolation.Want
	// hold is true while a stopped task waits for its next try: it keeps its GPUs
	// and its place in the network.
	hold  bool
	until time.Time // of hold
	why   string
}

// keeps says whether the instance keeps its GPUs, its address in the rule sets
// and its guard.
func (d decision) keeps() bool {
	return d.want == isolation.WantRunning || d.want == isolation.WantFenced || d.hold
}

// decide is the restart policy: desired state and what is remembered of the last
// run in, what to want out.
func decide(o *spec.Object, r store.Record, now time.Time) decision {
	in := o.Spec.(*spec.InstanceSpec)
	switch {
	case o.Metadata.DeletedAt != nil:
		return decision{want: isolation.WantAbsent, why: "it was deleted"}
	case in.State == spec.StateStopped:
		return decision{want: isolation.WantStopped, why: "its state is stopped"}
	case r.LastExit == nil || r.EndedRun != runOf(o):
		return decision{want: isolation.WantRunning, why: "its state is running"}
	case !restarts(in.Restart, *r.LastExit):
		return decision{want: isolation.WantStopped, why: "it ended and its restart policy is " + in.Restart}
	case now.Before(r.NotBefore):
		return decision{want: isolation.WantStopped, hold: true, until: r.NotBefore, why: "it waits for its next try"}
	default:
		return decision{want: isolation.WantRunning, why: "its restart policy is " + in.Restart}
	}
}

// restarts says whether a policy runs a task again after this exit. An unknown
// exit counts as a failure.
func restarts(policy string, e spec.ExitStatus) bool {
	switch policy {
	case spec.RestartAlways:
		return true
	case spec.RestartNever:
		return false
	default:
		return e.Unknown || e.Code != 0
	}
}

// runOf names one intention to run: what is run, and the last time somebody
// asked for it. A run that ended is not begun again unless this changes.
func runOf(o *spec.Object) string {
	in := o.Spec.(*spec.InstanceSpec)
	text, err := json.Marshal([]any{in.RestartedAt, in.Image, in.Command, in.Env, in.User})
	if err != nil {
		panic("encode strings: " + err.Error()) // strings and maps of strings always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Restart pauses: doubling from the first, up to the last; forgotten after a run
// of restartForgiven.
const (
	restartFirst    = time.Second
	restartLast     = 5 * time.Minute
	restartForgiven = 10 * time.Minute
)

// afterExit is the record once a task has ended.
func afterExit(r store.Record, o *spec.Object, e spec.ExitStatus) store.Record {
	if !r.Started.IsZero() && e.At.Sub(r.Started) >= restartForgiven {
		r.FailStreak = 0
	}
	pause := restartFirst
	for range r.FailStreak {
		pause = min(pause*2, restartLast)
	}
	r.LastExit, r.EndedRun = &e, runOf(o)
	r.NotBefore = e.At.Add(pause)
	r.FailStreak++
	return r
}

// requestOf is what an instance asks of the GPUs.
func requestOf(o *spec.Object, d decision) drivers.Request {
	in := o.Spec.(*spec.InstanceSpec)
	return drivers.Request{
		Instance: o.Metadata.UID, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name,
		Count: in.GPUs.Count, Model: in.GPUs.Model, MIG: in.GPUs.MIG, Want: d.keeps(),
	}
}

// leaseOf is what an instance's container is granted.
func leaseOf(o *spec.Object, d decision, ids isolation.IDRange, gpus []isolation.Device, nameserver string) isolation.Lease {
	in := o.Spec.(*spec.InstanceSpec)
	return isolation.Lease{
		UID: o.Metadata.UID, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, Generation: o.Metadata.Generation,
		Want: d.want, IDs: ids,
		Image: in.Image, PullPolicy: in.PullPolicy, PullSecret: in.PullSecret,
		Command: in.Command, Env: in.Env, User: in.User,
		Limits: isolation.Limits{
			CPU: in.Resources.CPUs, Memory: in.Resources.Memory, Pids: in.Resources.Pids, Shm: in.Resources.Shm,
		},
		StopGrace: time.Duration(in.StopGrace), GPUs: gpus, Nameserver: nameserver, RestartToken: in.RestartedAt,
	}
}

// vpcOf is what one VPC should hold: its tenant's groups and the endpoints of
// the instances that keep a place in it.
func vpcOf(o *spec.Object, objects []*spec.Object, transit netip.Prefix, protected []netip.Prefix, endpoints []network.Endpoint) (network.VPC, error) {
	cidr, err := netip.ParsePrefix(o.Spec.(*spec.NetworkSpec).CIDR)
	if err != nil {
		return network.VPC{}, fmt.Errorf("read CIDR of %s: %w", o.Ref(), err)
	}
	groups := make(map[string]network.Group)
	for _, g := range objects {
		if g.Kind == spec.KindSecurityGroup && g.Metadata.Tenant == o.Metadata.Tenant {
			groups[g.Metadata.Name] = network.Group{Generation: g.Metadata.Generation, Spec: *g.Spec.(*spec.SecurityGroupSpec)}
		}
	}
	sort.Slice(endpoints, func(i, j int) bool { return endpoints[i].Instance < endpoints[j].Instance })
	return network.VPC{
		UID: o.Metadata.UID, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, CIDR: cidr,
		Transit: transitOf(transit),
		Groups:  groups, Endpoints: endpoints, Protected: protected,
	}, nil
}

func transitOf(link netip.Prefix) network.Transit {
	return network.Transit{Host: link.Addr(), Router: link.Addr().Next()}
}

// endpointOf is an instance's NIC, once it has an address.
func endpointOf(o *spec.Object, address netip.Addr, netnsDir string) network.Endpoint {
	in := o.Spec.(*spec.InstanceSpec)
	return network.Endpoint{
		Instance: o.Metadata.UID, Name: o.Metadata.Name, Address: address,
		Groups: in.Network.SecurityGroups, Publish: in.Publish,
		Netns: netnsDir + "/" + string(o.Metadata.UID),
	}
}

// rangeValue is how the journal writes a tenant's range.
func rangeValue(r isolation.IDRange) string { return strconv.FormatUint(uint64(r.Start), 10) }
