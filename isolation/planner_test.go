package isolation

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

var update = flag.Bool("update", false, "write golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func testLease() Lease {
	return Lease{
		UID: "abcd2345", Tenant: "acme", Name: "train-1", Generation: 2, Want: WantRunning,
		IDs: IDRange{Start: 1_879_048_192, Size: 65_536}, Image: "busybox", StopGrace: 30 * time.Second,
		Env:    map[string]spec.EnvValue{"A": {Value: "1"}, "B": {Secret: "s/key"}},
		Limits: Limits{CPU: 2000, Memory: 1 << 30, Pids: 64},
		GPUs:   []Device{{UUID: "GPU-a", Minor: 0}, {UUID: "GPU-b", Minor: 3}},
	}
}

// reached is a host on which the lease was pursued.
func reached(t *testing.T, want Lease) *fake {
	t.Helper()
	f := &fake{guard: true, reserved: true}
	if err := pursue(f, want); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPlans(t *testing.T) {
	running := testLease()
	with := func(change func(*Lease)) Lease {
		l := testLease()
		change(&l)
		return l
	}
	for _, tt := range []struct {
		name  string
		from  *Lease // pursued before; nil for an empty host
		upset func(*fake)
		want  Lease
	}{
		{"first-start", nil, nil, running},
		{"running-already", &running, nil, running},
		{"changed-command", &running, nil, with(func(l *Lease) { l.Command = []string{"sleep"} })},
		{"changed-gpus", &running, nil, with(func(l *Lease) { l.GPUs = l.GPUs[:1] })},
		{"changed-image", &running, nil, with(func(l *Lease) { l.Image = "debian" })},
		{"restart", &running, nil, with(func(l *Lease) { l.RestartToken = "2" })},
		{"exited", &running, func(f *fake) { f.end(3) }, running},
		{"exit-lost", &running, func(f *fake) { f.end(3); f.lose() }, running},
		{"empty-cgroup", &running, func(f *fake) { f.cgroup.Populated = false }, running},
		{"program-gone", &running, func(f *fake) { f.cgroup.Program = ProgramNone }, running},
		{"log-writer-gone", &running, func(f *fake) { f.log = false }, running},
		{"stopped", &running, nil, with(func(l *Lease) { l.Want = WantStopped })},
		{"absent", &running, nil, with(func(l *Lease) { l.Want = WantAbsent })},
		{"fenced", &running, nil, with(func(l *Lease) { l.Want = WantFenced })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fake{guard: true, reserved: true}
			if tt.from != nil {
				f = reached(t, *tt.from)
			}
			if tt.upset != nil {
				tt.upset(f)
			}
			have, err := f.room().Observe(t.Context(), tt.want)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Plan(tt.want, have, testTime).Ordered()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".plan", withNeeds(p))
		})
	}
}

// withNeeds is the plan's text with what each step needs.
func withNeeds(p plan.Plan) string {
	var b strings.Builder
	b.WriteString(p.Text())
	for _, s := range p.Steps {
		for _, need := range s.Needs {
			b.WriteString(string(s.ID) + " <- " + string(need) + "\n")
		}
	}
	return b.String()
}

// A hash that changes with a release would restart every tenant.
func TestFingerprintIsForEver(t *testing.T) {
	l := testLease()
	l.Command, l.User, l.Nameserver, l.RestartToken = []string{"a b", "c"}, "1000", "10.0.0.1", "r"
	text, err := json.MarshalIndent(FingerprintOf(l), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "fingerprint.json", string(text)+"\n")
}

func TestEmptyPartsAreNoDifference(t *testing.T) {
	if f := FingerprintOf(testLease()); f["command"] != "" || f["restart"] != "" {
		t.Errorf("empty parts are in %v", f)
	}
}

func TestStartNeedsItsOwnAudit(t *testing.T) {
	f := reached(t, testLease())
	f.end(0)
	f.task, f.started = Task{Status: TaskCreated, Pid: 99}, false
	step := plan.NewStep(plan.Isolation, VerbStart, "abcd2345", "test", testLease())
	err := f.room().Apply(context.Background(), step, nil)
	if fault.KindOf(err) != fault.Internal || f.task.Status != TaskCreated {
		t.Errorf("started without an audit: %v", err)
	}
}

func TestFailedAuditIsNamed(t *testing.T) {
	f := &fake{guard: true, reserved: true, badAudit: true}
	err := pursue(f, testLease())
	if err == nil || !strings.Contains(err.Error(), "I1 user namespace (expected own, found own)") {
		t.Errorf("error %v", err)
	}
}

// What is not proved does not start; it is no defect either, and tried again.
func TestWhatIsUnknownDoesNotStart(t *testing.T) {
	f := &fake{guard: true, reserved: true, blindAudit: true}
	err := pursue(f, testLease())
	if !fault.Is(err, fault.Temporary) || f.task.Status != TaskCreated {
		t.Errorf("error %v, task %s", err, f.task.Status)
	}
}

func TestSecretsAreResolved(t *testing.T) {
	env, err := (&fake{}).room().env(t.Context(), testLease())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"A": "1", "B": "value of s/key"}, env); diff != "" {
		t.Error(diff)
	}
}
