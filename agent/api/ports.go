package api

import (
	"context"
	"io"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Backend is what stands behind the routes. The API checks who asks and what
// the wire carries; everything else is decided here.
type Backend struct {
	Objects   Objects
	Planner   Planner
	Instances Instances
	Images    Images
	Host      Host
	History   History
}

// Objects keeps the resources. Callers that reach it may touch every object
// they name: access was decided before.
type Objects interface {
	// Apply validates all objects together and stores all or none. Slow
	// consequences come back as changes.
	Apply(ctx context.Context, who Caller, objects []*spec.Object, how ApplyOptions) (ApplyResult, error)
	// Get answers not found for an absent object. Host and Tenant have an empty ref.Tenant.
	Get(ctx context.Context, ref spec.Ref) (*spec.Object, error)
	// List is sorted by tenant and name; an empty tenant means all.
	List(ctx context.Context, kind spec.Kind, tenant string) ([]*spec.Object, error)
	// Delete asks for the object to go. ifMatch is the generation the caller
	// read, 0 for any; another one is a conflict.
	Delete(ctx context.Context, who Caller, ref spec.Ref, ifMatch uint64) (ChangeRef, error)
}

// Planner says what would change, without changing anything.
type Planner interface {
	// Plan answers for the objects given, or for all stored ones when there are none.
	Plan(ctx context.Context, objects []*spec.Object) (PlanResult, error)
	// Verify compares the host with the objects given, or with all stored ones.
	// Nothing found means converged.
	Verify(ctx context.Context, objects []*spec.Object) ([]Deviation, error)
}

// Instances does what is no plain write to an instance.
type Instances interface {
	Verb(ctx context.Context, who Caller, ref spec.Ref, verb Verb) (ChangeRef, error)
	// Logs is text, ending at the present end or, when followed, with the
	// context or the instance's log. The name may be of an instance that is gone.
	Logs(ctx context.Context, ref spec.Ref, options LogOptions) (Log, error)
	// Exec starts a command. The stream speaks package agent/frame: what is
	// written to it is the caller's side (stdin, resize), what is read from it
	// is the command's (stdout, stderr, exit). Closing it hangs the command up.
	Exec(ctx context.Context, who Caller, ref spec.Ref, request ExecRequest) (io.ReadWriteCloser, error)
}

// Images are kept for each tenant apart.
type Images interface {
	// List is sorted by tenant and name; an empty tenant means all.
	List(ctx context.Context, tenant string) ([]Image, error)
	Pull(ctx context.Context, who Caller, request PullRequest) (ChangeRef, error)
	// Import reads an OCI archive; size is its length in bytes, -1 when unknown.
	Import(ctx context.Context, who Caller, request ImportRequest, archive io.Reader) ([]Image, error)
	Remove(ctx context.Context, who Caller, tenant, name string) error
	// Prune removes what no instance uses; an empty tenant means all.
	Prune(ctx context.Context, who Caller, tenant string) (PruneResult, error)
}

// Host shows and checks the machine.
type Host interface {
	Status(ctx context.Context) (HostStatus, error)
	GPUs(ctx context.Context) ([]GPU, error)
	Links(ctx context.Context) ([]gpu.Link, error)
	// SetGPU quarantines a GPU or releases it into hand-over.
	SetGPU(ctx context.Context, who Caller, id gpu.UUID, request GPUActionRequest) (ChangeRef, error)
	// Audit reads the kernel for the instances named, or for all running ones.
	Audit(ctx context.Context, refs []spec.Ref) ([]AuditReport, error)
	// Doctor runs the checks named, or all.
	Doctor(ctx context.Context, checks []string) ([]CheckResult, error)
	// Config is the settings in force, each with its origin; secrets are redacted.
	Config(ctx context.Context) ([]Setting, error)
	// Reload reads the files of settings and desired state again. What is bad is the
	// error, and what was in force stays so.
	Reload(ctx context.Context) (ReloadResult, error)
	// Break breaks a simulated GPU, Mend makes all of them whole again. Where GPUs
	// are real both are unsupported.
	Break(ctx context.Context, request SimRequest) error
	Mend(ctx context.Context) error
}

// History is what happened.
type History interface {
	// Events gives those after query.After, oldest first.
	Events(ctx context.Context, query EventQuery) ([]Event, error)
	// FollowEvents calls each for every event after query.After, first the
	// stored ones, then new ones as they come, until the context ends (which is
	// no error) or each returns an error. It never skips one silently.
	FollowEvents(ctx context.Context, query EventQuery, each func(Event) error) error
	// Changes gives the latest ones, newest first.
	Changes(ctx context.Context, query ChangeQuery) ([]Change, error)
	Change(ctx context.Context, id string) (Change, error)
	// FollowChange calls each with the change now and at every later step or
	// progress, and returns nil once it was called with an ended change.
	FollowChange(ctx context.Context, id string, each func(Change) error) error
}
