// Package plan is the vocabulary of change: a [Step] is one change as data, a
// [Plan] is steps in an order that respects their needs.
//
// Rooms make steps without touching anything; the loop applies them; the
// command line prints exactly the same value. A step holds no closure and
// leaves no choice to the time of execution.
package plan

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Risk is what a step may cost somebody else.
type Risk string

// The risks, from harmless to host-wide.
const (
	RiskNone     Risk = "none"
	RiskDisrupts Risk = "disrupts-tenant"
	RiskReboot   Risk = "needs-reboot"
)

// Room names who applies a step.
type Room string

// The rooms.
const (
	Drivers   Room = "drivers"
	Isolation Room = "isolation"
	Network   Room = "network"
)

// ID names a step within a plan: "room/verb object". It is deterministic, so
// that a step of one room can need a step of another without importing it.
type ID string

// MakeID composes the ID of the step that does verb to object in room.
func MakeID(room Room, verb, object string) ID {
	return ID(string(room) + "/" + verb + " " + object)
}

// Step is one idempotent change.
type Step struct {
	ID     ID     `json:"id"`
	Room   Room   `json:"room"`
	Verb   string `json:"verb"`   // "attach"
	Object string `json:"object"` // an object's uid, "vpc-1f…"; what the verb is done to
	Title  string `json:"title"`  // the object as a person knows it: "instance acme/train-1"
	Why    string `json:"why"`    // mandatory: the difference that calls for this step
	Needs  []ID   `json:"needs,omitempty"`
	Risk   Risk   `json:"risk"`
	// Args is a plain, JSON-encodable value of the verb's own type, without secrets.
	Args any `json:"args,omitempty"`
}

// NewStep fills a step's identity from its room, verb and object.
func NewStep(room Room, verb, object, why string, args any, needs ...ID) Step {
	return Step{
		ID: MakeID(room, verb, object), Room: room, Verb: verb, Object: object, Title: object,
		Why: why, Needs: needs, Risk: RiskNone, Args: args,
	}
}

// Plan is a list of steps. An empty plan means converged.
type Plan struct {
	Steps []Step `json:"steps"`
}

// Of makes a plan of steps as they are.
func Of(steps ...Step) Plan { return Plan{Steps: steps} }

// Empty says whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// Merge joins plans of several rooms. [Plan.Ordered] then settles the order.
func Merge(plans ...Plan) Plan {
	var all Plan
	for _, p := range plans {
		all.Steps = append(all.Steps, p.Steps...)
	}
	return all
}

// Has says whether a step with this ID is in the plan.
func (p Plan) Has(id ID) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.ID == id })
}

// Ordered returns the steps so that each comes after all it needs, keeping the
// given order wherever the needs allow it. A need that names no step of the
// plan is already true: its room found nothing to change. It refuses a cycle,
// a step without a why and two steps with one ID, all three defects of a
// planner.
func (p Plan) Ordered() (Plan, error) {
	index := make(map[ID]int, len(p.Steps))
	for i, s := range p.Steps {
		if s.Why == "" {
			return Plan{}, fault.New(fault.Internal, "order plan", "step %q has no why", s.ID)
		}
		if _, twice := index[s.ID]; twice {
			return Plan{}, fault.New(fault.Internal, "order plan", "step %q is there twice", s.ID)
		}
		index[s.ID] = i
	}
	o := ordering{steps: p.Steps, index: index, mark: make([]visit, len(p.Steps))}
	for i := range p.Steps {
		if err := o.place(i); err != nil {
			return Plan{}, err
		}
	}
	return Plan{Steps: o.out}, nil
}

type visit uint8

const (
	unseen visit = iota
	open
	placed
)

// ordering is a depth-first topological sort that is stable in the input order.
type ordering struct {
	steps []Step
	index map[ID]int
	mark  []visit
	out   []Step
}

func (o *ordering) place(i int) error {
	switch o.mark[i] {
	case placed:
		return nil
	case open:
		return fault.New(fault.Internal, "order plan", "step %q needs itself", o.steps[i].ID)
	}
	o.mark[i] = open
	for _, need := range o.steps[i].Needs {
		if j, there := o.index[need]; there {
			if err := o.place(j); err != nil {
				return err
			}
		}
	}
	o.mark[i] = placed
	o.out = append(o.out, o.steps[i])
	return nil
}

// ArgsAs gives the step's arguments as the verb's own type. Another type is a
// defect of the planner and comes back as an internal fault.
func ArgsAs[T any](s Step) (T, error) {
	args, ok := s.Args.(T)
	if !ok {
		return args, fault.New(fault.Internal, string(s.ID), "arguments are %T, want %T", s.Args, args)
	}
	return args, nil
}

// Text renders the plan for a person: one line a step, its why below.
func (p Plan) Text() string {
	if p.Empty() {
		return "nothing to change\n"
	}
	var text string
	for i, s := range p.Steps {
		risk := ""
		if s.Risk != RiskNone && s.Risk != "" {
			risk = " [" + string(s.Risk) + "]"
		}
		text += fmt.Sprintf("%3d. %s %s: %s%s\n       why: %s\n", i+1, s.Room, s.Verb, s.Title, risk, s.Why)
	}
	return text
}

// JSON renders the plan for a program.
func (p Plan) JSON() ([]byte, error) { return json.MarshalIndent(p, "", "  ") }

// Progress is how far a long step has come. Total is 0 when unknown; both count
// Unit ("bytes", "layers").
type Progress struct {
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
	Unit  string `json:"unit,omitempty"`
	Note  string `json:"note,omitempty"`
}

// Report receives progress of the step being applied. It never blocks.
type Report func(Progress)
