package isolation

import (
	"fmt"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// The verbs of this room.
const (
	VerbPrepareImage    = "prepare-image"
	VerbMakeCgroup      = "make-cgroup"
	VerbMakeNodes       = "make-nodes"
	VerbCreate          = "create"
	VerbAudit           = "audit"
	VerbStart           = "start"
	VerbFence           = "fence"
	VerbStop            = "stop"
	VerbDeleteTask      = "delete-task"
	VerbDeleteContainer = "delete-container"
	VerbRemove          = "remove"
)

// EndArgs are the arguments of the verbs that end something: fence, stop,
// delete-task, delete-container and remove. All others carry the [Lease].
type EndArgs struct {
	Tenant string        `json:"tenant"`
	Grace  time.Duration `json:"grace,omitempty"` // stop: how long the stop signal may take
	Disk   Disk          `json:"disk,omitempty"`  // delete-container
}

// Plan says what brings the instance from have to want; empty when it is there.
//
//	absent ◀─remove── stopped ──make-cgroup, make-nodes, create──▶ created ──audit, start──▶ running
//	                     ▲                                                                      │
//	                     └──────────── delete-task ◀── exited ◀── stop ◀── fence ◀──────────────┘
//
// The needs that name steps of other rooms hold the order that is never broken:
// no node before the ledger has reserved its GPU, no start before the guard is
// proved. Time is an input by the room interface; this room's plans do not
// depend on it.
func Plan(want Lease, have Have, _ time.Time) plan.Plan {
	p := planner{want: want, have: have}
	switch want.Want {
	case WantRunning:
		p.running()
	case WantStopped:
		p.stopped()
	case WantAbsent:
		p.absent()
	case WantFenced:
		p.fenced()
	}
	return plan.Of(p.steps...)
}

type planner struct {
	want  Lease
	have  Have
	steps []plan.Step
}

func (p *planner) running() {
	task := p.have.Container.Task.Status
	changed := p.changed()
	p.prepareImage()
	switch {
	case task == TaskExited:
		p.end(exitText(p.have.Container.Task.Exit), false)
	case p.have.ends() && len(changed) > 0:
		p.end("changed: "+strings.Join(changed, ", "), true)
	case task == TaskNone && p.have.Cgroup.Populated:
		p.end("processes of a lost task are left", true)
	default:
		p.grow(task)
		return
	}
	p.grow(TaskNone)
}

// changed names the parts of the lease that the existing container does not have.
func (p *planner) changed() []string {
	c := p.have.Container
	if !c.Container {
		return nil
	}
	if !c.Snapshot {
		return []string{"disk (its snapshot is gone)"}
	}
	return c.Fingerprint.Differs(FingerprintOf(p.want))
}

// grow plans the way up from a task in the given state, which is the state
// after all steps planned so far.
func (p *planner) grow(task TaskStatus) {
	p.replaceContainer()
	fresh := p.plans(VerbDeleteTask)
	if why := p.cgroupWhy(fresh); why != "" {
		p.add(VerbMakeCgroup, why, p.want, p.own(VerbDeleteTask)...)
	}
	if p.needsNodes(fresh) {
		p.add(VerbMakeNodes, nodesWhy(p.want), p.want,
			append(p.own(VerbDeleteTask, VerbDeleteContainer, VerbPrepareImage), p.id(plan.Drivers, "reserve"))...)
	}
	if why := p.createWhy(task, fresh); why != "" {
		p.add(VerbCreate, why, p.want, p.own(VerbDeleteTask, VerbDeleteContainer, VerbPrepareImage, VerbMakeCgroup, VerbMakeNodes)...)
	}
	if task == TaskRunning {
		return
	}
	p.add(VerbAudit, "nothing starts before its isolation is read back from the kernel", p.want,
		append(p.own(VerbCreate), p.id(plan.Drivers, "assign"), p.id(plan.Network, "prove-guard"))...)
	p.add(VerbStart, "wanted running", p.want,
		append(p.own(VerbAudit), p.id(plan.Network, "prove-guard"))...)
}

// replaceContainer deletes a container made from another lease, and a disk
// made from another image.
func (p *planner) replaceContainer() {
	changed := p.changed()
	if len(changed) == 0 && !p.foreignDisk() {
		return
	}
	why, args := "changed: "+strings.Join(changed, ", "), p.endArgs()
	args.Disk = KeepDisk
	if p.foreignDisk() {
		why, args.Disk = "the image changed: a disk belongs to its image and is made anew", DeleteDisk
	}
	p.add(VerbDeleteContainer, why, args, p.own(VerbDeleteTask, VerbPrepareImage)...)
	if args.Disk == DeleteDisk {
		p.steps[len(p.steps)-1].Risk = plan.RiskDisrupts
	}
}

// foreignDisk says whether the disk is known to be of another image. One that
// does not say what it was made from is kept.
func (p *planner) foreignDisk() bool {
	c := p.have.Container
	return c.Snapshot && c.DiskImage != "" && c.DiskImage != FingerprintOf(p.want).Image()
}

// prepareImage comes before anything is ended: what cannot be pulled costs
// nobody a running task.
func (p *planner) prepareImage() {
	switch {
	case !needsImage(p.want, p.have):
	case p.have.Image == (Image{}):
		p.add(VerbPrepareImage, "image "+p.want.Image+" is not on this host", p.want)
	case p.want.PullPolicy == spec.PullAlways && p.newDisk():
		p.add(VerbPrepareImage, "pullPolicy is always", p.want)
	}
}

// newDisk says whether the snapshot is to be made: only then does the image matter.
func (p *planner) newDisk() bool {
	return !p.have.Container.Snapshot || p.foreignDisk()
}

func (p *planner) cgroupWhy(fresh bool) string {
	c := p.have.Cgroup
	switch {
	case fresh || !c.Exists:
		return "the cgroup with the outer device program must be there before the task"
	case c.Program == ProgramDeny:
		return "the outer device program denies everything"
	case c.Program == ProgramOther:
		return "the outer device program grants other devices"
	case c.Program != ProgramGrant:
		return "the outer device program is missing"
	}
	return ""
}

// needsNodes says whether nodes are to be made. They belong to the user that the
// container runs as: where there is no container yet, nodes that lie there may be
// another's.
func (p *planner) needsNodes(fresh bool) bool {
	newContainer := !p.have.Container.Container || p.plans(VerbDeleteContainer)
	return (fresh || newContainer) && len(p.want.GPUs) > 0 || !p.have.Nodes.Complete
}

func nodesWhy(l Lease) string {
	if len(l.GPUs) == 0 {
		return "device nodes without a GPU in the lease"
	}
	return fmt.Sprintf("private device nodes of %d GPUs are missing or not exact", len(l.GPUs))
}

func (p *planner) createWhy(task TaskStatus, fresh bool) string {
	switch {
	case fresh || task == TaskNone:
		return "no task" + p.leftOutWhy()
	case p.have.Pin != PinCurrent:
		return "the task's network namespace is not pinned"
	case !p.have.LogAlive:
		return "the task's log writer is gone"
	}
	return ""
}

// leftOutWhy says which limits will not be set. runc fails on a limit without
// its controller, so on such a machine, a development machine, there is none.
func (p *planner) leftOutWhy() string {
	left := LeftOut(p.want.Limits, p.have.Controllers)
	if len(left) == 0 {
		return ""
	}
	return "; not limited, for lack of cgroup controllers: " + strings.Join(left, ", ")
}

func (p *planner) stopped() {
	left := p.have.remains()
	if len(left) == 0 {
		return
	}
	p.fence()
	p.end(p.endWhy("wanted stopped", left), p.have.ends())
}

func (p *planner) absent() {
	p.stopped()
	for i := range p.steps {
		p.steps[i].Why = strings.Replace(p.steps[i].Why, "wanted stopped", "wanted absent", 1)
	}
	if c := p.have.Container; c.Container || c.Snapshot {
		p.add(VerbRemove, "wanted absent", p.endArgs(), p.own(VerbDeleteTask)...)
	}
}

func (p *planner) fenced() {
	if p.have.ends() && p.have.Cgroup.Program != ProgramDeny {
		p.add(VerbFence, "wanted fenced", p.endArgs())
		p.steps[len(p.steps)-1].Risk = plan.RiskDisrupts
	}
}

// fence is planned before a stop, so that what resists the stop signal opens no
// device any more.
func (p *planner) fence() {
	if p.have.ends() && p.have.Cgroup.Exists && p.have.Cgroup.Program != ProgramDeny {
		p.add(VerbFence, "no device is opened while the task ends", p.endArgs())
	}
}

func (p *planner) endWhy(want string, left []string) string {
	if p.have.Container.Task.Status == TaskExited {
		return want + "; " + exitText(p.have.Container.Task.Exit)
	}
	return want + ", found: " + strings.Join(left, ", ")
}

// end plans stop where something runs, and delete-task.
func (p *planner) end(why string, running bool) {
	if running {
		args := p.endArgs()
		args.Grace = p.want.StopGrace
		p.add(VerbStop, why, args, p.own(VerbFence, VerbPrepareImage)...)
		if p.have.Running() {
			p.steps[len(p.steps)-1].Risk = plan.RiskDisrupts
		}
	}
	p.add(VerbDeleteTask, why, p.endArgs(), p.own(VerbStop)...)
}

func exitText(exit *spec.ExitStatus) string {
	switch {
	case exit == nil || exit.Unknown:
		return "the task ended, its exit status is unknown"
	case exit.OOM:
		return fmt.Sprintf("the task ended with code %d, out of memory", exit.Code)
	}
	return fmt.Sprintf("the task ended with code %d", exit.Code)
}

func (p *planner) endArgs() EndArgs { return EndArgs{Tenant: p.want.Tenant} }

func (p *planner) add(verb, why string, args any, needs ...plan.ID) {
	step := plan.NewStep(plan.Isolation, verb, string(p.want.UID), why, args, needs...)
	step.Title = "instance " + p.want.Tenant + "/" + p.want.Name
	p.steps = append(p.steps, step)
}

func (p *planner) plans(verb string) bool {
	return plan.Of(p.steps...).Has(p.id(plan.Isolation, verb))
}

func (p *planner) id(room plan.Room, verb string) plan.ID {
	return plan.MakeID(room, verb, string(p.want.UID))
}

func (p *planner) own(verbs ...string) []plan.ID {
	ids := make([]plan.ID, len(verbs))
	for i, verb := range verbs {
		ids[i] = p.id(plan.Isolation, verb)
	}
	return ids
}
