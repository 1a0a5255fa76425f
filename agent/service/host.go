package service

import (
	"context"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Host implements api.Host.
type Host struct {
	Loop     *reconcile.Loop
	Store    *store.Store
	Settings func() *config.Config // in force at this moment
	// ReadFiles reads settings and desired state again, and says which settings wait
	// for a restart.
	ReadFiles func(context.Context) (waiting []string, err error)
	Simulator Simulator // nil where the GPUs are real
	Facts     HostFacts
	Samples   func() map[gpu.UUID]gpu.Sample
	Controls  reconcile.AuditRead
	Parts     func(context.Context) []api.PartStatus
	Checks    func(context.Context, []string) ([]api.CheckResult, error)
}

// HostFacts do not change while the agent runs.
type HostFacts struct {
	HostID  string
	Version string
	Sim     string
	Started time.Time
	CPUs    spec.CPU
	Memory  spec.Bytes
}

// Status implements api.Host.
func (s Host) Status(ctx context.Context) (api.HostStatus, error) {
	name, err := os.Hostname()
	if err != nil {
		return api.HostStatus{}, err
	}
	have, err := s.Loop.GPUs(ctx)
	if err != nil {
		return api.HostStatus{}, err
	}
	out := api.HostStatus{
		Hostname: name, HostID: s.Facts.HostID, Version: s.Facts.Version, StartedAt: s.Facts.Started,
		Kernel: kernel(), Driver: have.Inventory.DriverVersion, Sim: s.Facts.Sim,
		Instances: make(api.PhaseCounts), Parts: s.Parts(ctx), Problems: Problems(s.Loop.Problems()), Ready: true, Converged: true,
	}
	for _, p := range out.Parts {
		out.Ready = out.Ready && p.Ready
	}
	return out, s.count(&out, have)
}

// count fills in what instances are promised and how they are.
func (s Host) count(out *api.HostStatus, have drivers.Have) error {
	instances, err := s.Store.List(spec.KindInstance, "")
	if err != nil {
		return err
	}
	out.Capacity = api.Capacity{GPUs: len(have.Inventory.Devices), CPUs: s.Facts.CPUs, Memory: s.Facts.Memory}
	for _, e := range have.Settled() {
		if e.State == drivers.Free {
			out.Capacity.GPUsFree++
		}
	}
	for _, o := range instances {
		phase := spec.PhaseUnknown
		if o.Status != nil {
			phase = o.Status.Phase
		}
		out.Instances[phase]++
		in := o.Spec.(*spec.InstanceSpec)
		if in.State != spec.StateStopped {
			out.Capacity.CPUsPromised += in.Resources.CPUs
			out.Capacity.MemoryPromised += in.Resources.Memory
		}
		out.Problems = append(out.Problems, problems(o)...)
	}
	out.Converged = len(out.Problems) == 0
	return nil
}

// problems are the conditions of an instance that a person should know of.
func problems(o *spec.Object) []api.Problem {
	if o.Status == nil || o.Status.Phase == spec.PhaseRunning || o.Status.Phase == spec.PhaseStopped {
		return nil
	}
	var out []api.Problem
	for _, c := range o.Status.Conditions {
		if c.Type == "Ready" && !c.Status {
			out = append(out, api.Problem{
				Name: o.Ref().String() + " is " + string(o.Status.Phase), Message: c.Message,
				Hint: "gpuhost describe instance " + o.Metadata.Tenant + "/" + o.Metadata.Name, Since: c.Since,
			})
		}
	}
	return out
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// GPUs implements api.Host.
func (s Host) GPUs(ctx context.Context) ([]api.GPU, error) {
	have, err := s.Loop.GPUs(ctx)
	if err != nil {
		return nil, err
	}
	entries, samples := have.Settled(), s.Samples()
	out := make([]api.GPU, len(have.Inventory.Devices))
	for i, d := range have.Inventory.Devices {
		e := entries[d.UUID]
		out[i] = api.GPU{Device: d, State: string(e.State), Tenant: e.Tenant, Instance: e.Name, Reason: e.Reason, Since: e.Since}
		if sample, measured := samples[d.UUID]; measured {
			out[i].Sample = &sample
		}
	}
	return out, nil
}

// Links implements api.Host.
func (s Host) Links(ctx context.Context) ([]gpu.Link, error) {
	have, err := s.Loop.GPUs(ctx)
	return have.Inventory.Links, err
}

// SetGPU implements api.Host.
func (s Host) SetGPU(ctx context.Context, who api.Caller, id gpu.UUID, r api.GPUActionRequest) (api.ChangeRef, error) {
	reason := r.Reason
	if reason == "" {
		reason = string(r.Action) + " by " + who.Name
	}
	planOf := map[api.GPUAction]func(drivers.Have, gpu.UUID, string) (plan.Plan, error){
		api.GPUQuarantine: drivers.PlanQuarantine, api.GPURelease: drivers.PlanRelease,
	}[r.Action]
	if planOf == nil {
		return api.ChangeRef{}, fault.New(fault.Invalid, "set "+string(id), "there is no action %q", r.Action).
			WithHint("quarantine or release")
	}
	return api.ChangeRef{Object: spec.Ref{Kind: spec.KindHost, Name: "this"}}, s.Loop.OnGPU(ctx, id, func(have drivers.Have) (plan.Plan, error) {
		return planOf(have, id, reason)
	})
}

// Audit implements api.Host. Without refs it passes over instances that do not run.
func (s Host) Audit(ctx context.Context, refs []spec.Ref) ([]api.AuditReport, error) {
	instances, err := s.instances(refs)
	if err != nil {
		return nil, err
	}
	controls, err := s.audits(ctx, instances, len(refs) > 0)
	if err != nil {
		return nil, err
	}
	out := make([]api.AuditReport, 0, len(instances))
	for i, o := range instances {
		switch {
		case len(controls[i]) > 0:
			out = append(out, reportOf(o, controls[i]))
		case len(refs) > 0:
			return nil, fault.New(fault.Conflict, "audit "+o.Ref().String(), "it does not run").
				WithHint("gpuhost describe instance %s/%s", o.Metadata.Tenant, o.Metadata.Name)
		}
	}
	return out, nil
}

// audits reads the controls of instances side by side.
func (s Host) audits(ctx context.Context, instances []*spec.Object, named bool) ([][]spec.Control, error) {
	controls := make([][]spec.Control, len(instances))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i, o := range instances {
		group.Go(func() (err error) {
			controls[i], err = s.Loop.Audit(ctx, o, s.Controls)
			if !named && endedMeanwhile(err) {
				return nil
			}
			return err
		})
	}
	return controls, group.Wait()
}

func (s Host) instances(refs []spec.Ref) ([]*spec.Object, error) {
	if len(refs) == 0 {
		return s.Store.List(spec.KindInstance, "")
	}
	out := make([]*spec.Object, len(refs))
	for i, ref := range refs {
		var err error
		if out[i], err = s.Store.Get(ref); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// endedMeanwhile says whether an audit came to nothing because the task ended in
// it, or the instance was removed: then it does not run, and that is no failure.
func endedMeanwhile(err error) bool {
	return fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound)
}

func reportOf(o *spec.Object, controls []spec.Control) api.AuditReport {
	report := api.AuditReport{Object: o.Ref(), At: time.Now().UTC(), Pass: true, Controls: controls}
	for _, c := range controls {
		report.Pass = report.Pass && c.Pass
	}
	return report
}

// Doctor implements api.Host.
func (s Host) Doctor(ctx context.Context, checks []string) ([]api.CheckResult, error) {
	return s.Checks(ctx, checks)
}

// Config implements api.Host.
func (s Host) Config(context.Context) ([]api.Setting, error) {
	all := s.Settings().Settings()
	out := make([]api.Setting, len(all))
	for i, setting := range all {
		out[i] = api.Setting{Key: setting.Key, Value: setting.Value, Origin: setting.Origin}
	}
	return out, nil
}

// Reload implements api.Host.
func (s Host) Reload(ctx context.Context) (api.ReloadResult, error) {
	waiting, err := s.ReadFiles(ctx)
	return api.ReloadResult{Waiting: waiting}, err
}
