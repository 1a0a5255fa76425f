package drivers_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// row is one allocation: the ledger as one letter a GPU in order of address —
// "." free, a letter held by the instance of that name (Z of another tenant), "~"
// in hand-over, "!" quarantined — and the same with what "n" is given as N.
type row struct {
	name, host, ledger, want string
	request                  drivers.Request
	why                      string
}

func TestAllocate(t *testing.T) {
	for _, r := range []row{
		{name: "one of equals: the lowest", host: "dgx-h100", ledger: "........", want: "N.......", request: drivers.Request{Count: 1},
			why: "1 of 8 free: NUMA node 0"},
		{name: "one beside others: the node already broken into", host: "dgx-h100", ledger: "....a...", want: "....aN..", request: drivers.Request{Count: 1}},
		{name: "two stay on one node", host: "dgx-h100", ledger: "aaa.....", want: "aaa.NN..", request: drivers.Request{Count: 2},
			why: "2 of 5 free: NVLink ×18 between all, NUMA node 1"},
		{name: "four take the whole node", host: "dgx-h100", ledger: "a.......", want: "a...NNNN", request: drivers.Request{Count: 4}},
		{name: "eight take all", host: "dgx-a100", ledger: "........", want: "NNNNNNNN", request: drivers.Request{Count: 8},
			why: "8 of 8 free: NVLink ×12 between all, 2 NUMA nodes"},
		{name: "a pair is a pair", host: "nvlink-pairs", ledger: ".a......", want: ".aNN....", request: drivers.Request{Count: 2},
			why: "2 of 7 free: NVLink ×4 between all, NUMA node 0"},
		{name: "one takes the widow, not half a pair", host: "nvlink-pairs", ledger: ".....a..", want: "....Na..", request: drivers.Request{Count: 1}},
		{name: "three: a pair and a neighbour on its node", host: "nvlink-pairs", ledger: "a.......", want: "aNNN....", request: drivers.Request{Count: 3}},
		{name: "an operator asks", host: "nvlink-pairs", ledger: ".a...ZZ.", want: "", request: drivers.Request{Count: 7, Names: true}, why: "5 of this host's GPUs free, 1 held by acme/a, 2 held by zeta/Z"},
		{name: "seven of six", host: "nvlink-pairs", ledger: ".a.....a", want: "", request: drivers.Request{Count: 7}, why: "6 of this host's GPUs free, 2 held by acme/a"},
		{name: "what is held is kept", host: "nvlink-pairs", ledger: ".....n..", want: "....NN..", request: drivers.Request{Count: 2},
			why: "1 of 7 free, 1 held already: NVLink ×4 between all, NUMA node 1"},
		{name: "fewer than held: the best of them", host: "nvlink-pairs", ledger: "n.nn....", want: "n.NN....", request: drivers.Request{Count: 2},
			why: "held already: NVLink ×4 between all, NUMA node 0"},
		{name: "the model in any case", host: "dgx-h100", ledger: "........", want: "N.......", request: drivers.Request{Count: 1, Model: "h100"}},
		{name: "another model", host: "dgx-h100", ledger: "........", request: drivers.Request{Count: 1, Model: "A100"},
			why: `no GPU here is a "A100"; this host has 8 × NVIDIA H100 80GB HBM3`},
		{name: "too many", host: "dgx-h100", ledger: "aabb!~..", request: drivers.Request{Count: 3},
			why: "2 of this host's GPUs free, 2 held by acme/a, 2 held by acme/b, 1 in hand-over, 1 quarantined"},
		{name: "too many beside its own", host: "dgx-h100", ledger: "nnaaaaaa", request: drivers.Request{Count: 3},
			why: "0 of this host's GPUs free, 2 already its own, 6 held by acme/a"},
		{name: "beside other tenants, who are not named", host: "dgx-h100", ledger: "Zaaaaaa.", request: drivers.Request{Count: 2, Model: "h100"},
			why: `1 of this host's "h100" GPUs free, 6 held by acme/a, 1 held by other tenants`},
		{name: "more than there are", host: "dgx-h100", ledger: "........", request: drivers.Request{Count: 9}, why: "8 of this host's GPUs free"},
		{name: "a slice", host: "dgx-h100", ledger: "........", request: drivers.Request{Count: 1, MIG: "3g.40gb"}, why: "slices of a GPU (3g.40gb) are not built yet"},
		{name: "no slice at all", host: "dgx-h100", ledger: "........", request: drivers.Request{Count: 1, MIG: "3g"}, why: "is no MIG profile"},
		{name: "a negative count", host: "dgx-h100", ledger: "........", request: drivers.Request{Count: -1}, why: "never negative"},
	} {
		t.Run(r.name, func(t *testing.T) { r.check(t) })
	}
}

// TestGPUsInMIGModeAreNotGivenWhole: they are counted apart, and one that an instance
// has stays with it.
func TestGPUsInMIGModeAreNotGivenWhole(t *testing.T) {
	inv := inventoryOf(t, "nvlink-pairs")
	for _, i := range []int{0, 1, 4} {
		inv.Devices[i].MIGEnabled = true
	}
	r := drivers.Request{Instance: "uid-n", Tenant: "acme", Name: "n", Want: true, Count: 2}
	pick, err := drivers.Allocate(inv, ledger(inv, "........"), r)
	if have := picture(inv, "........", pick); err != nil || have != "..NN...." {
		t.Errorf("have %s, %v", have, err)
	}
	r.Count = 6
	_, err = drivers.Allocate(inv, ledger(inv, "........"), r)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "5 of this host's GPUs free, 3 in MIG mode") {
		t.Errorf("have %v", err)
	}
	r.Count = 1
	if pick, err := drivers.Allocate(inv, ledger(inv, "n......."), r); err != nil || picture(inv, "n.......", pick) != "N......." {
		t.Errorf("have %v, %v", pick, err)
	}
}

func (r row) check(t *testing.T) {
	inv := inventoryOf(t, r.host)
	request := r.request
	request.Instance, request.Tenant, request.Name, request.Want = "uid-n", "acme", "n", true
	pick, err := drivers.Allocate(inv, ledger(inv, r.ledger), request)
	why := pick.Why
	if err != nil {
		why = err.Error()
	}
	if (err == nil) != (r.want != "") || !strings.Contains(why, r.why) {
		t.Fatalf("have %v, %q; want %q", err, why, r.why)
	}
	if have := picture(inv, r.ledger, pick); err == nil && have != r.want {
		t.Errorf("have %s, want %s (%s)", have, r.want, why)
	}
}

func ledger(inv gpu.Inventory, letters string) map[gpu.UUID]drivers.Entry {
	entries := map[gpu.UUID]drivers.Entry{}
	for i, letter := range letters {
		e := drivers.Entry{GPU: inv.Devices[i].UUID, BootID: boot, Since: noon()}
		switch letter {
		case '.':
			e.State = drivers.Free
		case '~':
			e.State = drivers.Scrubbing
		case '!':
			e.State, e.Reason = drivers.Quarantined, "it fell off"
		default:
			e.State, e.Tenant, e.Name = drivers.Assigned, "acme", string(letter)
			if letter == 'Z' {
				e.Tenant = "zeta"
			}
			e.Owner = spec.UID("uid-" + string(letter))
		}
		entries[e.GPU] = e
	}
	return entries
}

func picture(inv gpu.Inventory, letters string, pick drivers.Pick) string {
	out := []byte(letters)
	for i, d := range inv.Devices {
		for _, given := range pick.GPUs {
			if given.UUID == d.UUID {
				out[i] = 'N'
			}
		}
	}
	return string(out)
}

func TestAllocateErrorsHaveKinds(t *testing.T) {
	inv := inventoryOf(t, "dgx-h100")
	for _, r := range []struct {
		name    string
		request drivers.Request
		inv     gpu.Inventory
		want    fault.Kind
	}{
		{"too many", drivers.Request{Count: 9}, inv, fault.Exhausted},
		{"no such model", drivers.Request{Count: 1, Model: "T4"}, inv, fault.Invalid},
		{"no GPU at all", drivers.Request{Count: 1}, gpu.Inventory{}, fault.Exhausted},
		{"a slice", drivers.Request{Count: 1, MIG: "1g.10gb"}, inv, fault.Unsupported},
		{"not a slice", drivers.Request{Count: 1, MIG: "big"}, inv, fault.Invalid},
	} {
		t.Run(r.name, func(t *testing.T) {
			r.request.Want = true
			if _, err := drivers.Allocate(r.inv, nil, r.request); !fault.Is(err, r.want) {
				t.Errorf("have %v (%s), want %s", err, fault.KindOf(err), r.want)
			}
		})
	}
}

// TestAllocateIsDeterministic shuffles what NVML and the ledger may give in any
// order.
func TestAllocateIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inv := inventoryOf(t, rapid.SampledFrom([]string{"dgx-b200", "nvlink-pairs"}).Draw(t, "host"))
		letters := rapid.StringMatching(`[.abn~!]{8}`).Draw(t, "ledger")
		r := drivers.Request{Instance: "uid-n", Name: "n", Count: rapid.IntRange(0, 8).Draw(t, "count"), Want: true}
		entries := ledger(inv, letters)
		want, wantErr := drivers.Allocate(inv, entries, r)
		inv.Devices = rapid.Permutation(inv.Devices).Draw(t, "devices")
		inv.Links = rapid.Permutation(inv.Links).Draw(t, "links")
		have, haveErr := drivers.Allocate(inv, entries, r)
		if (wantErr == nil) != (haveErr == nil) || have.Why != want.Why || len(have.GPUs) != len(want.GPUs) {
			t.Fatalf("have %v %v, want %v %v", have, haveErr, want, wantErr)
		}
		for i := range want.GPUs {
			if have.GPUs[i].UUID != want.GPUs[i].UUID {
				t.Errorf("GPU %d: have %s, want %s", i, have.GPUs[i].UUID, want.GPUs[i].UUID)
			}
		}
	})
}

func BenchmarkAllocateHalfOfSixteen(b *testing.B) {
	inv := inventoryOf(b, "nvlink-pairs")
	other := inventoryOf(b, "dgx-a100") // eight more devices, linked with nothing
	inv.Devices = append(inv.Devices, other.Devices...)
	r := drivers.Request{Instance: "uid-n", Count: 8, Want: true}
	for b.Loop() {
		if _, err := drivers.Allocate(inv, nil, r); err != nil {
			b.Fatal(err)
		}
	}
}
