package reconcile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func small() spec.ResourcesSpec {
	return spec.ResourcesSpec{CPUs: 500, Memory: 1 << 29, Pids: 100, Shm: 1 << 20}
}

func eightGPUs() Admission {
	a := Admission{CPUs: 64_000, Memory: 512 << 30, Entries: map[gpu.UUID]drivers.Entry{}, Small: small()}
	for i := range 8 {
		d := gpu.Device{UUID: gpu.UUID(fmt.Sprintf("GPU-%08d-0000-0000-0000-000000000000", i)), Index: i, Minor: uint32(i), Model: "NVIDIA H100 80GB HBM3", NUMANode: i / 4}
		a.GPUs.Devices = append(a.GPUs.Devices, d)
	}
	return a
}

func world8(t *testing.T, instances ...*spec.Object) []*spec.Object {
	t.Helper()
	all := spec.DefaultsForTenant("acme")
	for i, o := range instances {
		o.Metadata.Tenant = "acme"
		o.Metadata.Name = fmt.Sprintf("i%d", i)
		o.Metadata.UID = spec.UID(fmt.Sprintf("uid%05d", i))
		spec.Default(o)
		all = append(all, o)
	}
	return all
}

func wanting(gpus int, memory spec.Bytes) *spec.Object {
	return server(func(in *spec.InstanceSpec) {
		in.GPUs.Count = gpus
		in.Resources = spec.ResourcesSpec{CPUs: 1000, Memory: memory, Pids: 10, Shm: 1 << 20}
	})
}

func withQuota(objects []*spec.Object, q spec.QuotaSpec) []*spec.Object {
	for _, o := range objects {
		if o.Kind == spec.KindTenant {
			o.Spec = &spec.TenantSpec{Quota: q}
		}
	}
	return objects
}

func TestAdmission(t *testing.T) {
	two := 2
	for _, row := range []struct {
		name    string
		objects []*spec.Object
		kind    fault.Kind
		says    string
	}{
		{"fits", world8(t, wanting(4, 1<<30), wanting(4, 1<<30)), "", ""},
		{"too many GPUs", world8(t, wanting(5, 1<<30), wanting(4, 1<<30)), fault.Exhausted, "i1"},
		{"too much memory", world8(t, wanting(0, 500<<30), wanting(0, 20<<30)), fault.Exhausted, "8GiB"},
		{"over quota", withQuota(world8(t, wanting(1, 1), wanting(1, 1), wanting(1, 1)), spec.QuotaSpec{GPUs: &two}),
			fault.Exhausted, "the quota is 2 GPUs"},
	} {
		err := eightGPUs().Check(nil, row.objects)
		if fault.KindOf(err) != row.kind {
			t.Errorf("%s: %v (%s), want kind %q", row.name, err, fault.KindOf(err), row.kind)
			continue
		}
		if err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %q does not say %q", row.name, err, row.says)
		}
	}
}

func TestWhatIsInForceIsNeverRefusedAgain(t *testing.T) {
	over := world8(t, wanting(0, 600<<30))
	if err := eightGPUs().Check(over, over); err != nil {
		t.Errorf("an unchanged set was refused: %v", err)
	}
}

func TestCompleteGivesTheShareByGPUs(t *testing.T) {
	in := &spec.InstanceSpec{GPUs: spec.GPURequest{Count: 2}}
	eightGPUs().Complete(in, &spec.HostSpec{Reserved: spec.ReservedSpec{CPUs: 0, Memory: 0}})
	if in.Resources.CPUs != 16_000 || in.Resources.Memory != 128<<30 {
		t.Errorf("a quarter of the GPUs got %v CPUs and %v", in.Resources.CPUs, in.Resources.Memory)
	}
	none := &spec.InstanceSpec{}
	eightGPUs().Complete(none, &spec.HostSpec{})
	if none.Resources != small() {
		t.Errorf("no GPU got %+v", none.Resources)
	}
	asked := &spec.InstanceSpec{Resources: spec.ResourcesSpec{CPUs: 1, Memory: 2, Pids: 3, Shm: 4}}
	eightGPUs().Complete(asked, &spec.HostSpec{})
	if asked.Resources != (spec.ResourcesSpec{CPUs: 1, Memory: 2, Pids: 3, Shm: 4}) {
		t.Errorf("what was written changed to %+v", asked.Resources)
	}
}

func TestPublishedPortsOfTheHost(t *testing.T) {
	on := func(ports ...uint16) []*spec.Object {
		return world8(t, server(func(in *spec.InstanceSpec) {
			for _, p := range ports {
				in.Publish = append(in.Publish, spec.Publish{HostPort: p, Port: 80, Protocol: "tcp"})
			}
		}))
	}
	for _, row := range []struct {
		name          string
		before, after []*spec.Object
		tenant        bool
		want          fault.Kind
	}{
		{"a tenant's", on(), on(8080), true, ""},
		{"a tenant's, of the host's own", on(), on(22), true, fault.Forbidden},
		{"the operator's, of the host's own", on(), on(80), false, ""},
		{"one that the host listens on", on(), on(8080, 2222), true, fault.Conflict},
		{"one that the host listens on, the operator's", on(), on(2222), false, fault.Conflict},
		{"one that is published already", on(22, 2222), on(22, 2222, 8080), true, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := eightGPUs()
			a.Bounded, a.Ports, a.Listens = row.tenant, []spec.PortRange{{First: 1024, Last: 65535}}, func(p spec.Publish) bool { return p.HostPort == 2222 }
			if err := a.Check(row.before, row.after); fault.KindOf(err) != row.want {
				t.Errorf("Check: %v, want %q", err, row.want)
			}
		})
	}
}

func TestWhoHasTheRestIsSaid(t *testing.T) {
	held := func(tenant, name string, memory spec.Bytes) *spec.Object {
		o := server(func(in *spec.InstanceSpec) { in.Resources = spec.ResourcesSpec{CPUs: 1000, Memory: memory} })
		o.Metadata.Tenant, o.Metadata.Name = tenant, name
		spec.Default(o)
		return o
	}
	before := []*spec.Object{held("acme", "a", 100<<30), held("globex", "b", 200<<30), held("initech", "c", 150<<30), held("umbrella", "d", 1<<30)}
	more := held("acme", "new", 62<<30)
	a := eightGPUs()
	for _, row := range []struct {
		name   string
		tenant bool
		want   string
	}{
		{"an operator asks", false, "the host gives instances 512GiB of memory, 1GiB more are asked for; 200GiB held by globex/b, 150GiB held by initech/c, 100GiB held by acme/a, the rest by 1 more"},
		{"a tenant asks", true, "the host gives instances 512GiB of memory, 1GiB more are asked for; 351GiB held by other tenants, 100GiB held by acme/a"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a.Bounded = row.tenant
			err := a.checkCapacity(append(before[:len(before):len(before)], more), []*spec.Object{more})
			if err == nil || err.Error() != "admit instance acme/new: "+row.want {
				t.Errorf("have %v\nwant %s", err, row.want)
			}
		})
	}
}
