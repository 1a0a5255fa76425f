package isolation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// fake is a whole pretend host for one instance behind every port. It is what
// the kernel and containerd would hold, so it outlives the room, and it says
// when an order is broken that must never be.
type fake struct {
	images    map[string]bool
	snapshot  string // the image it was made from, "" for none
	etc       bool   // its files: nothing shows them but the disk or the container
	container *ContainerState
	task      Task
	started   bool
	cgroup    CgroupState
	granted   string // of the outer program
	nodes     []Node
	nodeOwner uint32
	pin       int
	log       bool
	exits     []spec.ExitStatus

	guard      bool // the network's default-deny is in force
	reserved   bool // the ledger holds the lease's GPUs
	badAudit   bool
	blindAudit bool // what was to look could not
	deaf       bool // the task ignores its stop signal
	nextPid    int
	broken     []string // orders that were broken
	operations int
	failAt     int // the operation that fails, counted from 1

	onCgroup func() // happens just before the cgroup is read
	onAwait  func() // happens while an exit is awaited
	onAudit  func() // happens while controls are read
}

var errInjected = errors.New("injected")

// touch counts an operation and lets one fail before it has done anything.
func (f *fake) touch() error {
	f.operations++
	if f.operations == f.failAt {
		return errInjected
	}
	return nil
}

func (f *fake) room() *Room {
	return New(Deps{
		Containers: containersFake{f}, Tasks: tasksFake{f}, Images: imagesFake{f}, Cgroups: cgroupsFake{f}, Nodes: nodesFake{f},
		Pins: pinsFake{f}, Wardens: wardensFake{f}, Auditor: auditorFake{f}, Guard: guardFake{f}, Secrets: secretsFake{},
		Trees: treesFake{f}, Exits: exitsFake{f}, Now: func() time.Time { return testTime },
	})
}

var testTime = time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)

func grantText(l Lease) string { return fmt.Sprint(Grant(l, 0)) }

type treesFake struct{ *fake }

func (f treesFake) Tree(_ context.Context, tenant string) (string, error) {
	return "/trees/" + tenant, f.touch()
}

type containersFake struct{ *fake }

func (f containersFake) State(context.Context, string, spec.UID) (ContainerState, error) {
	s := ContainerState{}
	if f.container != nil {
		s = *f.container
		s.Task = f.task
	}
	s.Snapshot = f.snapshot != ""
	if s.Snapshot {
		s.DiskImage = FingerprintOf(Lease{Image: f.snapshot}).Image()
	}
	return s, f.touch()
}

func (f containersFake) User(_ context.Context, l Lease) (User, error) {
	if f.container != nil {
		return f.container.User, f.touch()
	}
	if !f.images[l.Image] && f.snapshot != l.Image {
		return User{}, fault.New(fault.NotFound, "find user", "no image")
	}
	if l.User == "" && l.Image == "debian" {
		return User{UID: 1000, GID: 100}, f.touch()
	}
	var user User
	_, _ = fmt.Sscanf(l.User, "%d:%d", &user.UID, &user.GID)
	return user, f.touch()
}

func (f containersFake) Prepare(_ context.Context, c Creation) error {
	if err := f.touch(); err != nil {
		return err
	}
	if f.container != nil {
		f.etc = true
		return nil
	}
	if f.snapshot == "" {
		if !f.images[c.Lease.Image] {
			return fault.New(fault.NotFound, "prepare", "no image")
		}
		f.snapshot = c.Lease.Image
	}
	if f.snapshot != c.Lease.Image {
		f.broken = append(f.broken, "container on another image's disk")
	}
	if err := f.touch(); err != nil {
		return err
	}
	f.etc = true
	if err := f.touch(); err != nil {
		return err
	}
	f.container = &ContainerState{Container: true, User: c.User, Generation: c.Lease.Generation, Fingerprint: maps.Clone(c.Fingerprint)}
	return nil
}

func (f containersFake) Delete(_ context.Context, _ string, _ spec.UID, disk Disk) error {
	if err := f.touch(); err != nil {
		return err
	}
	if f.task.Status != TaskNone {
		return errors.New("container has a task")
	}
	f.etc = false
	if err := f.touch(); err != nil {
		return err
	}
	if disk == DeleteDisk {
		f.snapshot = ""
	}
	if err := f.touch(); err != nil {
		return err
	}
	f.container = nil
	return nil
}

type tasksFake struct{ *fake }

func (f tasksFake) CreateTask(context.Context, string, spec.UID) (int, error) {
	if err := f.touch(); err != nil {
		return 0, err
	}
	if f.container == nil || f.task.Status == TaskExited {
		return 0, errors.New("no container, or a task that ended")
	}
	if f.task.Status == TaskNone {
		if f.cgroup.Program != ProgramGrant {
			f.broken = append(f.broken, "task without outer program")
		}
		if len(f.nodes) > 0 && f.nodeOwner != testLease().IDs.Start+f.container.User.UID {
			f.broken = append(f.broken, fmt.Sprintf("nodes of %d for %+v", f.nodeOwner, f.container.User))
		}
		f.nextPid++
		f.task = Task{Status: TaskCreated, Pid: f.nextPid}
		f.cgroup.Populated = true
	}
	return f.task.Pid, nil
}

func (f tasksFake) StartTask(context.Context, string, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	if f.task.Status == TaskRunning {
		return nil
	}
	if f.task.Status != TaskCreated {
		return errors.New("no task to start")
	}
	for name, ok := range map[string]bool{
		"start without guard": f.guard, "start with failed audit": !f.badAudit && !f.blindAudit, "start without log writer": f.log,
		"start without pin": f.pin == f.task.Pid, "start without outer program": f.cgroup.Program == ProgramGrant,
	} {
		if !ok {
			f.broken = append(f.broken, name)
		}
	}
	f.task.Status, f.started = TaskRunning, true
	return nil
}

func (f tasksFake) StopTask(_ context.Context, _ string, _ spec.UID, grace time.Duration) error {
	if err := f.touch(); err != nil {
		return err
	}
	if f.task.Status == TaskRunning && f.deaf {
		return fault.New(fault.Timeout, "stop", "deaf")
	}
	if f.task.Status == TaskRunning {
		f.end(0)
	}
	return nil
}

// end lets the task end by itself.
func (f *fake) end(code int) {
	f.task = Task{Status: TaskExited}
	if f.started {
		f.task.Exit = &spec.ExitStatus{Code: code, At: testTime}
	}
	f.cgroup.Populated = false
}

// lose makes containerd forget an ended task.
func (f *fake) lose() {
	if f.task.Status == TaskExited && f.started {
		f.task.Exit = &spec.ExitStatus{Unknown: true, At: testTime}
	}
}

func (f tasksFake) AwaitExit(context.Context, string, spec.UID) (*spec.ExitStatus, error) {
	if f.onAwait != nil {
		f.onAwait()
	}
	return f.task.Exit, f.touch()
}

func (f tasksFake) DeleteTask(context.Context, string, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	if f.task.Exit != nil && !slices.Contains(f.exits, *f.task.Exit) {
		f.broken = append(f.broken, "exit not recorded")
	}
	if f.task.Status == TaskRunning {
		return errors.New("task runs")
	}
	f.task, f.started = Task{}, false
	return nil
}

type imagesFake struct{ *fake }

func (f imagesFake) Image(_ context.Context, _, ref string) (Image, error) {
	if !f.images[ref] {
		return Image{}, f.touch()
	}
	return Image{Ref: ref, Digest: "sha256:1"}, f.touch()
}

func (f imagesFake) PrepareImage(_ context.Context, req ImageRequest, _ plan.Report) (Image, error) {
	if err := f.touch(); err != nil {
		return Image{}, err
	}
	if f.images == nil {
		f.fake.images = make(map[string]bool)
	}
	f.images[req.Ref] = true
	return Image{Ref: req.Ref, Digest: "sha256:1"}, nil
}

type cgroupsFake struct{ *fake }

func (f cgroupsFake) Make(_ context.Context, l Lease) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.cgroup.Exists, f.cgroup.Program, f.granted = true, ProgramGrant, grantText(l)
	return nil
}

func (f cgroupsFake) State(_ context.Context, l Lease) (CgroupState, error) {
	if f.onCgroup != nil {
		f.onCgroup()
	}
	s := f.cgroup
	if s.Program == ProgramGrant && f.granted != grantText(l) {
		s.Program = ProgramOther
	}
	return s, f.touch()
}

func (f cgroupsFake) Fence(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.cgroup.Program = ProgramDeny
	return nil
}

func (f cgroupsFake) Kill(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	if f.task.Status == TaskRunning || f.task.Status == TaskCreated {
		f.end(137)
	}
	f.cgroup.Populated = false
	return nil
}

func (f cgroupsFake) Remove(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.cgroup = CgroupState{}
	return nil
}

func (f cgroupsFake) Controllers(context.Context) ([]string, error) {
	return []string{"cpu", "memory"}, f.touch()
}

type nodesFake struct{ *fake }

func (f nodesFake) Make(_ context.Context, l Lease) error {
	if err := f.touch(); err != nil {
		return err
	}
	if !f.reserved {
		f.broken = append(f.broken, "nodes before the ledger")
	}
	f.nodes, f.nodeOwner = Grant(l, 0), l.NodeOwner()
	return nil
}

func (f nodesFake) State(_ context.Context, l Lease) (NodesState, error) {
	exact := slices.Equal(f.nodes, Grant(l, 0)) && (len(f.nodes) == 0 || f.nodeOwner == l.NodeOwner())
	return NodesState{Nodes: f.nodes, Complete: exact}, f.touch()
}

func (f nodesFake) Remove(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.nodes = nil
	return nil
}

type pinsFake struct{ *fake }

func (f pinsFake) Pin(_ context.Context, _ spec.UID, pid int) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.pin = pid
	return nil
}

func (f pinsFake) State(_ context.Context, _ spec.UID, pid int) (PinState, error) {
	switch {
	case f.pin == 0:
		return PinNone, f.touch()
	case f.pin == pid:
		return PinCurrent, f.touch()
	}
	return PinStale, f.touch()
}

func (f pinsFake) Unpin(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.pin = 0
	return nil
}

type wardensFake struct{ *fake }

func (f wardensFake) StartLog(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.log = true
	return nil
}

func (f wardensFake) LogAlive(context.Context, spec.UID) (bool, error) { return f.log, f.touch() }

func (f wardensFake) StopLog(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.log = false
	return nil
}

type auditorFake struct{ *fake }

func (f auditorFake) Audit(context.Context, Lease, int) ([]spec.Control, error) {
	if f.onAudit != nil {
		f.onAudit()
	}
	return []spec.Control{{ID: "I1", Name: "user namespace", Expected: "own", Found: "own", Pass: !f.badAudit && !f.blindAudit, Unknown: f.blindAudit}}, f.touch()
}

type guardFake struct{ *fake }

func (f guardFake) Prove(context.Context, spec.UID) error {
	if err := f.touch(); err != nil {
		return err
	}
	if !f.guard {
		return errors.New("no guard")
	}
	return nil
}

type secretsFake struct{}

func (secretsFake) Value(_ context.Context, _, ref string) (string, error) {
	return "value of " + ref, nil
}

type exitsFake struct{ *fake }

func (f exitsFake) RecordExit(_ context.Context, _ spec.UID, exit spec.ExitStatus) error {
	if err := f.touch(); err != nil {
		return err
	}
	f.exits = append(f.exits, exit)
	return nil
}
