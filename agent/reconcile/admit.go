package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Admission is what must be known about the host to say yes to objects. It is
// plain data, so that the same answer is given for a plan and for an apply.
type Admission struct {
	CPUs    spec.CPU
	Memory  spec.Bytes
	GPUs    gpu.Inventory
	Entries map[gpu.UUID]drivers.Entry
	// Small are the resources of an instance that names none and holds no GPU.
	Small spec.ResourcesSpec
	// Bounded says that the caller is a tenant: it may publish on Ports of the host
	// only, and is told of others that they are there, not who they are.
	Bounded bool
	Ports   []spec.PortRange
	// Listens says whether something on the host answers on a port; nil where
	// nobody can tell.
	Listens func(spec.Publish) bool
}

// sharePids is how many processes an instance may have for each GPU it holds.
const sharePids = 4096

// Complete fills in an instance's omitted resources: the host's share by GPUs
// held, else a small default. What is written stays.
func (a Admission) Complete(in *spec.InstanceSpec, host *spec.HostSpec) {
	r := &in.Resources
	n, all := in.GPUs.Count, len(a.GPUs.Devices)
	if n == 0 || all == 0 {
		r.CPUs = cmp.Or(r.CPUs, min(a.Small.CPUs, a.CPUs))
		r.Memory = cmp.Or(r.Memory, a.Small.Memory)
		r.Pids = cmp.Or(r.Pids, a.Small.Pids)
		r.Shm = cmp.Or(r.Shm, min(a.Small.Shm, r.Memory/2))
		return
	}
	cpus, memory := a.capacity(host)
	r.CPUs = cmp.Or(r.CPUs, max(cpus*spec.CPU(n)/spec.CPU(all), 1))
	r.Memory = cmp.Or(r.Memory, wholeMiB(memory/spec.Bytes(all)*spec.Bytes(n)))
	r.Pids = cmp.Or(r.Pids, int64(sharePids*n))
	r.Shm = cmp.Or(r.Shm, wholeMiB(r.Memory/8))
}

// wholeMiB rounds down to what a person can read.
func wholeMiB(b spec.Bytes) spec.Bytes { return b &^ (1<<20 - 1) }

// capacity is what instances may be promised: the host without its reserve.
func (a Admission) capacity(host *spec.HostSpec) (spec.CPU, spec.Bytes) {
	factor := cmp.Or(host.Overcommit.CPU, 1)
	cpus := spec.CPU(float64(max(a.CPUs-host.Reserved.CPUs, 0)) * factor)
	return cpus, max(a.Memory-host.Reserved.Memory, 0)
}

// Check says whether the whole desired set fits: the references and rules of
// spec, then quotas, then the host. before is the set that is in force: whatever
// it already promised is never refused again.
func (a Admission) Check(before, after []*spec.Object) error {
	if err := spec.ValidateChange(before, after); err != nil {
		return err
	}
	if err := checkQuotas(after); err != nil {
		return err
	}
	if err := a.checkPorts(before, after); err != nil {
		return err
	}
	changed := newcomers(before, after)
	if len(changed) == 0 {
		return nil
	}
	if err := a.checkGPUs(after); err != nil {
		return err
	}
	return a.checkCapacity(after, changed)
}

// demand is what instances ask for together.
type demand struct {
	instances int
	gpus      int
	cpus      spec.CPU
	memory    spec.Bytes
}

func (d demand) plus(in *spec.InstanceSpec) demand {
	d.instances++
	if in.State == spec.StateStopped {
		return d
	}
	d.gpus += in.GPUs.Count
	d.cpus += in.Resources.CPUs
	d.memory += in.Resources.Memory
	return d
}

// live lists the instances that are not on their way out.
func live(objects []*spec.Object) []*spec.Object {
	var out []*spec.Object
	for _, o := range objects {
		if o.Kind == spec.KindInstance && o.Metadata.DeletedAt == nil {
			out = append(out, o)
		}
	}
	return out
}

func instanceOf(o *spec.Object) *spec.InstanceSpec { return o.Spec.(*spec.InstanceSpec) }

func checkQuotas(after []*spec.Object) error {
	used := make(map[string]demand)
	for _, o := range live(after) {
		used[o.Metadata.Tenant] = used[o.Metadata.Tenant].plus(instanceOf(o))
	}
	for _, o := range after {
		if o.Kind != spec.KindTenant {
			continue
		}
		if err := withinQuota(o.Metadata.Name, o.Spec.(*spec.TenantSpec).Quota, used[o.Metadata.Name]); err != nil {
			return err
		}
	}
	return nil
}

func withinQuota(tenant string, q spec.QuotaSpec, d demand) error {
	over := func(what, quota, wanted any) error {
		return fault.New(fault.Exhausted, "admit instances of tenant "+tenant,
			"the quota is %v %v and %v would be used", quota, what, wanted).
			WithHint("gpuhost describe tenant %s", tenant)
	}
	switch {
	case q.Instances != nil && d.instances > *q.Instances:
		return over("instances", *q.Instances, d.instances)
	case q.GPUs != nil && d.gpus > *q.GPUs:
		return over("GPUs", *q.GPUs, d.gpus)
	case q.CPUs != nil && d.cpus > *q.CPUs:
		return over("CPUs", *q.CPUs, d.cpus)
	case q.Memory != nil && d.memory > *q.Memory:
		return over("of memory", *q.Memory, d.memory)
	}
	return nil
}

// newcomers are the instances of after that ask for more than before promised
// them.
func newcomers(before, after []*spec.Object) []*spec.Object {
	had := make(map[spec.Ref]demand)
	for _, o := range live(before) {
		had[o.Ref()] = demand{}.plus(instanceOf(o))
	}
	var out []*spec.Object
	for _, o := range live(after) {
		was, now := had[o.Ref()], demand{}.plus(instanceOf(o))
		if now.cpus > was.cpus || now.memory > was.memory || now.gpus > was.gpus {
			out = append(out, o)
		}
	}
	return out
}

// hostOf finds the operator's Host object; its defaults when there is none.
func hostOf(objects []*spec.Object) *spec.HostSpec {
	for _, o := range objects {
		if o.Kind == spec.KindHost {
			return o.Spec.(*spec.HostSpec)
		}
	}
	return &spec.HostSpec{}
}

func (a Admission) checkCapacity(after, changed []*spec.Object) error {
	cpus, memory := a.capacity(hostOf(after))
	var all demand
	for _, o := range live(after) {
		all = all.plus(instanceOf(o))
	}
	if all.memory > memory {
		return a.short(after, changed, shortage{"memory", uint64(memory), uint64(all.memory), func(d demand) uint64 { return uint64(d.memory) },
			func(n uint64) string { return spec.Bytes(n).About() }})
	}
	if all.cpus > cpus {
		return a.short(after, changed, shortage{"CPUs", uint64(cpus), uint64(all.cpus), func(d demand) uint64 { return uint64(d.cpus) },
			func(n uint64) string { return spec.CPU(n).String() }})
	}
	return nil
}

// shortage is something of the host that is not enough for all.
type shortage struct {
	what      string
	has, want uint64
	of        func(demand) uint64
	text      func(uint64) string
}

// short says how much is missing of how much, and who has the rest, the largest
// first.
func (a Admission) short(after, changed []*spec.Object, s shortage) error {
	why := fmt.Sprintf("the host gives instances %s of %s, %s more are asked for", s.text(s.has), s.what, s.text(s.want-s.has))
	if held := a.held(after, changed, s); held != "" {
		why += "; " + held
	}
	return fault.New(fault.Exhausted, "admit "+changed[0].Ref().String(), "%s", why).
		WithHint("gpuhost status; stop an instance or ask for less")
}

// mostHolders bounds who is named of many.
const mostHolders = 3

func (a Admission) held(after, changed []*spec.Object, s shortage) string {
	shares := make(map[string]uint64)
	for _, o := range live(after) {
		n := s.of(demand{}.plus(instanceOf(o)))
		if n == 0 || slices.Contains(changed, o) {
			continue
		}
		holder := o.Metadata.Tenant + "/" + o.Metadata.Name
		if a.Bounded && o.Metadata.Tenant != changed[0].Metadata.Tenant {
			holder = "other tenants"
		}
		shares[holder] += n
	}
	holders := slices.SortedFunc(maps.Keys(shares), func(x, y string) int {
		return cmp.Or(cmp.Compare(shares[y], shares[x]), cmp.Compare(x, y))
	})
	var parts []string
	for _, holder := range holders[:min(len(holders), mostHolders)] {
		parts = append(parts, s.text(shares[holder])+" held by "+holder)
	}
	if more := len(holders) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("the rest by %d more", more))
	}
	return strings.Join(parts, ", ")
}

// checkGPUs tries to give every running instance its GPUs on a copy of the ledger.
func (a Admission) checkGPUs(after []*spec.Object) error {
	entries := maps.Clone(a.Entries)
	if entries == nil {
		entries = make(map[gpu.UUID]drivers.Entry)
	}
	for _, o := range holdersFirst(live(after), entries) {
		in := instanceOf(o)
		if in.State == spec.StateStopped || in.GPUs.Count == 0 {
			continue
		}
		request := requestOf(o, decision{want: "running"})
		request.Names = !a.Bounded
		pick, err := drivers.Allocate(a.GPUs, entries, request)
		if err != nil {
			return fault.Wrap(fault.Exhausted, "admit "+o.Ref().String(), err)
		}
		for _, d := range pick.GPUs {
			entries[d.UUID] = drivers.Entry{
				GPU: d.UUID, State: drivers.Assigned, Owner: ownerOf(o), Tenant: o.Metadata.Tenant, Name: o.Metadata.Name,
			}
		}
	}
	return nil
}

// ownerOf stands in for the uid of an object that is not stored yet.
func ownerOf(o *spec.Object) spec.UID {
	return cmp.Or(o.Metadata.UID, spec.UID("new:"+o.Metadata.Tenant+"/"+o.Metadata.Name))
}

// holdersFirst orders instances so that those that hold GPUs keep them before
// others choose.
func holdersFirst(instances []*spec.Object, entries map[gpu.UUID]drivers.Entry) []*spec.Object {
	holds := make(map[spec.UID]bool)
	for _, e := range entries {
		holds[e.Owner] = true
	}
	out := slices.Clone(instances)
	slices.SortStableFunc(out, func(x, y *spec.Object) int {
		switch hx, hy := holds[x.Metadata.UID], holds[y.Metadata.UID]; {
		case hx == hy:
			return 0
		case hx:
			return -1
		default:
			return 1
		}
	})
	return out
}
