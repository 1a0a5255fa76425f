package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/isolation"
)

// settle ends a run of an instance's lane: it writes the status, ends the open
// change and says when to look again.
func (l *Loop) settle(ctx context.Context, o *spec.Object, v *view, rec *recorder, err error) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err() // the agent stops; what is under way goes on with the next
	}
	if err != nil {
		task, unread := l.taskOf(ctx, o)
		status := failedStatus(o, task, l.Now(), err)
		if unread || isUnseen(err) {
			status.Phase = spec.PhaseUnknown
		}
		l.putStatus(o, status)
		l.eventOnce(o, "StepFailed", err)
		rec.finish(err)
		return 0, retryable(err)
	}
	if err := l.noteStart(v); err != nil {
		return 0, err
	}
	if !v.decision.keeps() {
		if err := l.leave(ctx, v); err != nil {
			return 0, err
		}
	}
	if v.decision.want == isolation.WantAbsent {
		return l.vanish(ctx, v, rec)
	}
	l.putStatus(o, statusOf(v, l.Now()))
	rec.finish(nil)
	if v.decision.hold {
		return max(v.decision.until.Sub(l.Now()), time.Millisecond), nil
	}
	return 0, nil
}

// taskOf reads an instance's task once its run has failed: it may have ended
// before the failure or by the run itself. One that cannot be read is as it was
// seen last.
func (l *Loop) taskOf(ctx context.Context, o *spec.Object) (task isolation.Task, unread bool) {
	have, err := l.Isolation.Observe(ctx, isolation.Lease{UID: o.Metadata.UID, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name})
	if err == nil {
		return have.Container.Task, false
	}
	if o.Status == nil || o.Status.Instance == nil || o.Status.Instance.Pid == 0 {
		return isolation.Task{}, true
	}
	return isolation.Task{Status: isolation.TaskRunning, Pid: o.Status.Instance.Pid}, true
}

// retryable lets a lane rest on an error that trying again cannot mend; a change
// of what is desired triggers it anew.
func retryable(err error) error {
	if fault.KindOf(err).Retry() || fault.Is(err, fault.Conflict) {
		return err
	}
	return nil
}

// ReasonDeleted is the reason of the last event of an instance.
const ReasonDeleted = "Deleted"

// vanish drops the object of a deleted instance once nothing of it is left: its
// container, its endpoint, its GPUs.
func (l *Loop) vanish(ctx context.Context, v *view, rec *recorder) (time.Duration, error) {
	if err := l.lanes.do(ctx, laneGPUs); err != nil {
		return 0, err
	}
	have, err := l.Drivers.Observe(ctx)
	if err != nil {
		return 0, err
	}
	if left := inHandover(have, v.object.Metadata.UID); left > 0 {
		l.putStatus(v.object, statusOf(v, l.Now()))
		return handoverPause, nil
	}
	if err := l.forgetObject(v.object); err != nil {
		return 0, err
	}
	l.event(v.object, ReasonDeleted, "nothing of it is left on the host")
	rec.finish(nil)
	l.lanes.forget(instanceLane + string(v.object.Metadata.UID))
	l.triggerTenant(v.object.Metadata.Tenant)
	l.lanes.trigger(laneSweep)
	return 0, nil
}

// inHandover counts the GPUs that are still on their way back from an instance.
// One in quarantine stays there without it.
func inHandover(have drivers.Have, uid spec.UID) int {
	n := 0
	for _, e := range have.Entries {
		if e.Owner == uid && e.State != drivers.Quarantined && e.State != drivers.Free {
			n++
		}
	}
	return n
}

func (l *Loop) triggerTenant(name string) {
	if o, err := l.Store.Get(spec.Ref{Kind: spec.KindTenant, Name: name}); err == nil {
		l.TriggerObject(o)
	}
}

// noteStart records that a task runs which did not before.
func (l *Loop) noteStart(v *view) error {
	running := v.have.Running() && v.decision.want == isolation.WantRunning
	pid := v.have.Container.Task.Pid
	if !running || v.record.Pid == pid {
		return nil
	}
	l.event(v.object, "Started", fmt.Sprintf("its task runs as pid %d", pid))
	now := l.Now()
	err := l.Store.UpdateRecord(v.object.Metadata.UID, func(r *store.Record) { r.Started, r.Pid = now, pid })
	if err == nil {
		v.record, err = l.Store.Record(v.object.Metadata.UID)
	}
	return err
}

// phase shows what a plan is about to do, before it is done.
func (l *Loop) phase(v *view, p plan.Plan) {
	status := statusOf(v, l.Now())
	uid := string(v.object.Metadata.UID)
	switch {
	case p.Has(plan.MakeID(plan.Isolation, isolation.VerbPrepareImage, uid)):
		status.Phase = spec.PhasePulling
	case v.decision.want == isolation.WantRunning:
		status.Phase = spec.PhaseStarting
	default:
		status.Phase = spec.PhaseStopping
	}
	l.putStatus(v.object, status)
}

func (l *Loop) putStatus(o *spec.Object, s spec.Status) {
	if err := l.Store.SetStatus(o.Metadata.UID, s); err != nil {
		l.Log.Error("write status", "object", o.Ref().String(), "error", err)
	}
}

// statusOf is what is seen of an instance, in the public words.
func statusOf(v *view, now time.Time) spec.Status {
	s := carry(v.object)
	s.Phase = phaseOf(v)
	s.Instance = &spec.InstanceStatus{
		ImageDigest: v.have.Image.Digest, Address: v.address.String(),
		Restarts: v.record.Restarts, LastExit: v.record.LastExit,
	}
	if v.have.Running() {
		s.Instance.Pid, s.Instance.StartedAt = v.have.Container.Task.Pid, v.record.Started
	}
	if v.decision.keeps() {
		for _, d := range v.lease.GPUs {
			s.Instance.GPUs = append(s.Instance.GPUs, string(d.UUID))
		}
		for _, p := range instanceOf(v.object).Publish {
			s.Instance.Published = append(s.Instance.Published, p.String())
		}
	}
	s.SetCondition(spec.Condition{
		Type: "Ready", Status: s.Phase == spec.PhaseRunning, Reason: string(s.Phase), Message: v.decision.why,
		ObservedGeneration: v.object.Metadata.Generation, Since: now,
	})
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c spec.Condition) bool { return c.Type == "LimitsReduced" })
	if left := isolation.LeftOut(v.lease.Limits, v.have.Controllers); len(left) > 0 && v.have.Running() {
		s.SetCondition(spec.Condition{
			Type: "LimitsReduced", Status: true, Reason: "NoController",
			Message:            "not limited, for lack of cgroup controllers: " + strings.Join(left, ", ") + " (gpuhost doctor controllers)",
			ObservedGeneration: v.object.Metadata.Generation, Since: now,
		})
	}
	return s
}

func carry(o *spec.Object) spec.Status {
	s := spec.Status{ObservedGeneration: o.Metadata.Generation}
	if o.Status != nil {
		s.Conditions = append(s.Conditions, o.Status.Conditions...)
		s.Instance = o.Status.Instance
	}
	return s
}

func phaseOf(v *view) spec.Phase {
	switch task := v.have.Container.Task.Status; {
	case v.decision.want == isolation.WantAbsent:
		return spec.PhaseStopping
	case v.decision.want == isolation.WantFenced:
		return spec.PhaseFenced
	case task == isolation.TaskRunning && v.decision.want == isolation.WantRunning:
		return spec.PhaseRunning
	case task == isolation.TaskRunning:
		return spec.PhaseStopping
	case v.decision.hold:
		return spec.PhasePending
	case v.decision.want == isolation.WantRunning:
		return spec.PhaseStarting
	case failedRun(v):
		return spec.PhaseFailed
	default:
		return spec.PhaseStopped
	}
}

// failedRun says whether an instance stands still because its last run failed.
func failedRun(v *view) bool {
	e := v.record.LastExit
	return instanceOf(v.object).State != spec.StateStopped && e != nil && (e.Unknown || e.Code != 0)
}

// failedStatus is the status of a run that ended with an error and left this task.
func failedStatus(o *spec.Object, task isolation.Task, now time.Time, err error) spec.Status {
	s := carry(o)
	if s.Instance != nil && (task.Status != isolation.TaskRunning || task.Pid != s.Instance.Pid) {
		seen := *s.Instance // shared with the status in force
		seen.Pid, seen.StartedAt = 0, time.Time{}
		s.Instance = &seen
	}
	s.Phase = spec.PhasePending
	if !fault.KindOf(err).Retry() {
		s.Phase = spec.PhaseFailed
	}
	s.SetCondition(spec.Condition{
		Type: "Ready", Reason: reasonOf(err), Message: message(err),
		ObservedGeneration: o.Metadata.Generation, Since: now,
	})
	return s
}

func reasonOf(err error) string {
	switch fault.KindOf(err) {
	case fault.Invalid:
		return "Invalid"
	case fault.Exhausted:
		return "Exhausted"
	case fault.NotFound:
		return "NotFound"
	case fault.Unsupported:
		return "Unsupported"
	case fault.Temporary, fault.Busy, fault.Timeout:
		return "Waiting"
	default:
		return "StepFailed"
	}
}

func message(err error) string {
	if hint := fault.HintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}

func (l *Loop) event(o *spec.Object, reason, text string) {
	e := store.Event{At: l.Now(), Type: "normal", Reason: reason, Message: text, Object: o.Ref(), UID: o.Metadata.UID, Actor: "gpuhost"}
	if reason == "StepFailed" || reason == "Failed" || reason == "AuditFailed" {
		e.Type = "warning"
	}
	if err := l.Store.AppendEvent(e); err != nil {
		l.Log.Error("write event", "object", o.Ref().String(), "reason", reason, "error", err)
	}
}

// eventOnce tells of an error unless the object's status told the same already.
func (l *Loop) eventOnce(o *spec.Object, reason string, err error) {
	if o.Status != nil {
		for _, c := range o.Status.Conditions {
			if c.Type == "Ready" && !c.Status && c.Message == message(err) {
				return
			}
		}
	}
	l.event(o, reason, message(err))
}

func exitReason(e spec.ExitStatus) string {
	if e.Unknown || e.Code != 0 {
		return "Failed"
	}
	return "Completed"
}

func exitMessage(e spec.ExitStatus) string {
	switch {
	case e.Unknown:
		return "its task ended and the exit status is lost"
	case e.OOM:
		return fmt.Sprintf("its task was ended with code %d: out of memory", e.Code)
	default:
		return fmt.Sprintf("its task ended with code %d", e.Code)
	}
}
