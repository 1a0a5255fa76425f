package store

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func TestRecordIsOnDisk(t *testing.T) {
	s := fresh(t)
	o := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object
	exit := spec.ExitStatus{Code: 3, At: testNow()}
	err := s.UpdateRecord(o.Metadata.UID, func(r *Record) { r.Restarts++; r.LastExit = &exit })
	if err != nil {
		t.Fatal(err)
	}
	exit.Code = 99
	s = again(t, s)
	got, err := s.Record(o.Metadata.UID)
	want := Record{Restarts: 1, LastExit: &spec.ExitStatus{Code: 3, At: testNow()}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := s.UpdateRecord("absentxx", func(*Record) { t.Error("called for an absent object") }); err != nil {
		t.Error(err)
	}
}

func TestClaims(t *testing.T) {
	s := fresh(t)
	ctx := context.Background()
	for _, owner := range []spec.UID{"u1", "u1"} {
		if err := s.Claim(ctx, "address/v", "10.0.0.1", owner); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, s.Claim(ctx, "address/v", "10.0.0.1", "u2"), fault.Conflict)
	wantKind(t, s.Claim(ctx, "address/v", "10.0.0.2", "u1"), fault.Conflict)
	if err := s.Claim(ctx, "transit", "10.0.0.1", "u2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Claim(ctx, "transit", "10.0.0.2", "u1"); err != nil {
		t.Fatal(err)
	}
	s = again(t, s)
	if err := s.Release("u1", "address/v"); err != nil {
		t.Fatal(err)
	}
	if err := s.ReleaseAll("u2"); err != nil {
		t.Fatal(err)
	}
	s = again(t, s)
	addresses, _ := s.Claims("address/v")
	transit, _ := s.Claims("transit")
	if diff := cmp.Diff(map[string]spec.UID{"10.0.0.2": "u1"}, transit); diff != "" || len(addresses) != 0 {
		t.Error(diff, addresses)
	}
}

func TestLedger(t *testing.T) {
	s := fresh(t)
	ctx := context.Background()
	entry := func(id gpu.UUID, state drivers.State) drivers.Entry {
		return drivers.Entry{GPU: id, State: state, Owner: "u1"}
	}
	move := func(from drivers.State, to drivers.Entry) drivers.Change { return drivers.Change{From: from, To: to} }

	err := s.Ledger().Transition(ctx, []drivers.Change{
		move(drivers.Free, entry("GPU-1", drivers.Reserved)), move(drivers.Free, entry("GPU-2", drivers.Reserved)),
	})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.Ledger().Transition(ctx, []drivers.Change{
		move(drivers.Free, entry("GPU-3", drivers.Reserved)), move(drivers.Free, entry("GPU-1", drivers.Reserved)),
	}), fault.Conflict)
	wantKind(t, s.Ledger().Transition(ctx, []drivers.Change{move(drivers.Reserved, entry("GPU-1", drivers.Free))}), fault.Internal)

	s = again(t, s)
	got, err := s.Ledger().Entries(ctx)
	want := map[gpu.UUID]drivers.Entry{
		"GPU-1": {GPU: "GPU-1", State: drivers.Reserved, Owner: "u1", BootID: "boot-1", Since: testNow()},
		"GPU-2": {GPU: "GPU-2", State: drivers.Reserved, Owner: "u1", BootID: "boot-1", Since: testNow()},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// TestLedgerAsksDrivers compares every pair of states with the state machine.
func TestLedgerAsksDrivers(t *testing.T) {
	for _, from := range drivers.States() {
		for _, to := range drivers.States() {
			l := ledger{}
			have := map[gpu.UUID]drivers.Entry{"g": {GPU: "g", State: from}}
			err := l.allowed(have, drivers.Change{From: from, To: drivers.Entry{GPU: "g", State: to}})
			if (err == nil) != drivers.Allowed(from, to) {
				t.Errorf("%s to %s: %v", from, to, err)
			}
		}
	}
}
