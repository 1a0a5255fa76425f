package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// The verbs. On a VPC: open, load, close. On an instance: attach, prove-guard,
// detach. On the host: load-host, forward, publish.
const (
	VerbOpen       = "open"
	VerbLoad       = "load"
	VerbClose      = "close"
	VerbAttach     = "attach"
	VerbProveGuard = "prove-guard"
	VerbDetach     = "detach"
	VerbLoadHost   = "load-host"
	VerbForward    = "forward"
	VerbPublish    = "publish"
)

// OpenArgs are what open needs.
type OpenArgs struct {
	Transit Transit `json:"transit"`
}

// LoadArgs are what load brings in force. The rules themselves are compiled and
// too large to print; Changes says in words what differs.
type LoadArgs struct {
	Generation string       `json:"generation"`
	Epoch      uint64       `json:"epoch"`
	Changes    []string     `json:"changes"`
	Stale      []FlowMark   `json:"stale,omitempty"` // connections to forget first
	Gone       []netip.Addr `json:"gone,omitempty"`  // addresses whose connections to forget after
	Owed       []Published  `json:"owed,omitempty"`  // connections to forget after
	// Rules hold the guards of links that are not there, too: which of them can
	// be made is seen when they are loaded, when no attach is under way.
	Rules *Rules `json:"-"`
}

// EndpointArgs are what attach, prove-guard and detach need.
type EndpointArgs struct {
	VPC      spec.UID `json:"vpc"`
	Endpoint Endpoint `json:"endpoint"`
	// Whole is the VPC the endpoint is in, to prove against.
	Whole *VPC `json:"-"`
}

// maxChanges bounds the list of differences that a plan shows.
const maxChanges = 12

// Plan makes the steps that bring a VPC's router namespace to what is wanted; a
// nil want removes it. The error says which group or rule is wrong.
func (p *Planner) Plan(want *VPC, uid spec.UID, have Have) (plan.Plan, error) {
	if want == nil {
		return p.planClose(uid, have), nil
	}
	if err := checkNames(want); err != nil {
		return plan.Plan{}, err
	}
	var steps []plan.Step
	if why := whyOpen(want, have); why != "" {
		steps = append(steps, titled(plan.NewStep(plan.Network, VerbOpen, string(uid), why, OpenArgs{want.Transit}), want))
	}
	args, err := p.load(*want, have)
	if err != nil {
		return plan.Plan{}, err
	}
	if len(args.Changes) > 0 {
		step := plan.NewStep(plan.Network, VerbLoad, string(uid), strings.Join(args.Changes, "; "), args,
			plan.MakeID(plan.Network, VerbOpen, string(uid)))
		steps = append(steps, titled(step, want))
	}
	return plan.Of(steps...), nil
}

func titled(s plan.Step, vpc *VPC) plan.Step {
	s.Title = "network " + vpc.Tenant + "/" + vpc.Name
	return s
}

func (p *Planner) planClose(uid spec.UID, have Have) plan.Plan {
	if !have.Present() {
		return plan.Plan{}
	}
	why := "no network wants this router namespace"
	if n := len(have.Links); n > 0 {
		why += fmt.Sprintf("; %d links end with it", n)
	}
	return plan.Of(plan.NewStep(plan.Network, VerbClose, string(uid), why, nil))
}

func checkNames(vpc *VPC) error {
	names := []string{TransitName(vpc.UID)}
	for _, e := range vpc.Endpoints {
		names = append(names, LinkName(e.Instance))
	}
	for _, name := range names {
		if len(name) > maxIfname {
			return fault.New(fault.Internal, "name link", "%q is longer than %d bytes", name, maxIfname)
		}
	}
	return nil
}

func whyOpen(want *VPC, have Have) string {
	switch {
	case !have.Namespace:
		return "the router namespace does not exist"
	case !have.Ready:
		return "the router namespace is not finished"
	case have.Transit == Transit{}:
		return "the transit link is missing or down"
	case have.Transit != want.Transit:
		return fmt.Sprintf("the transit link has %s and %s, want %s and %s",
			have.Transit.Host, have.Transit.Router, want.Transit.Host, want.Transit.Router)
	}
	return ""
}

// load compiles the VPC and finds what differs. No changes: nothing to load.
func (p *Planner) load(vpc VPC, have Have) (LoadArgs, error) {
	rules, err := p.Compile(vpc, p.marksOf(have.Router))
	if err != nil {
		return LoadArgs{}, err
	}
	loadable := rules
	if have.LinkFirst {
		loadable = rules.GuardedLinks(have.Linked)
	}
	args := LoadArgs{Generation: rules.Marks.Generation, Epoch: rules.Marks.Epoch, Stale: rules.Stale, Owed: have.Owed, Rules: rules}
	args.Changes = owing(have.Owed)
	for _, c := range loadable.Diff(have.Guard, have.Router) {
		args.Changes = append(args.Changes, c.Summary()...)
		if c.Table.Family == ruleset.Netdev {
			args.Gone = gone(have.Guard, c.Flush, vpc.Endpoints)
		}
	}
	if n := len(args.Changes); n > maxChanges {
		args.Changes = append(args.Changes[:maxChanges:maxChanges], fmt.Sprintf("and %d more", n-maxChanges))
	}
	return args, nil
}

// Diff finds what turns the tables read back into these rules: nothing, or the
// changes of both tables, to be made in one transaction.
func (r *Rules) Diff(guard, router *ruleset.State) []*ruleset.Changes {
	var all []*ruleset.Changes
	for _, t := range []struct {
		have *ruleset.State
		want *ruleset.Table
	}{{guard, r.Guard}, {router, r.Router}} {
		if changes := ruleset.Diff(t.have, t.want); !changes.Empty() {
			all = append(all, changes)
		}
	}
	return all
}

// gone are the addresses among changed guards that have no endpoint any more, or
// another one.
func gone(guard *ruleset.State, changed []string, endpoints []Endpoint) []netip.Addr {
	var addresses []netip.Addr
	for _, name := range changed {
		address, known := guardedAddress(guard.Chain(name))
		still := func(e Endpoint) bool { return GuardName(e.Instance) == name && e.Address == address }
		if known && !slices.ContainsFunc(endpoints, still) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// PlanEndpoint makes the steps that hang an instance on its router. The VPC's own
// plan, which brings the instance's rules in force, comes before.
func (p *Planner) PlanEndpoint(vpc VPC, e Endpoint, have Have) plan.Plan {
	why := ""
	switch link, there := have.Links[e.Instance]; {
	case !there:
		why = "the instance has no link"
	case !link.Current:
		why = "the link leads to a namespace that is no longer the instance's"
	case link.Address != e.Address:
		why = fmt.Sprintf("the link was made for address %s, want %s", link.Address, e.Address)
	case !link.Up:
		why = "the link is down"
	}
	if why == "" {
		return plan.Plan{}
	}
	uid := string(e.Instance)
	args := EndpointArgs{VPC: vpc.UID, Endpoint: e, Whole: &vpc}
	attach := plan.NewStep(plan.Network, VerbAttach, uid, why, args,
		plan.MakeID(plan.Isolation, "create", uid), plan.MakeID(plan.Network, VerbLoad, string(vpc.UID)))
	prove := plan.NewStep(plan.Network, VerbProveGuard, uid, "no instance starts before its default-deny is proved", args, attach.ID)
	attach.Title, prove.Title = "instance "+vpc.Tenant+"/"+e.Name, "instance "+vpc.Tenant+"/"+e.Name
	return plan.Of(attach, prove)
}

// PlanDetach makes the step that takes an instance off its router, once its task
// is gone.
func (p *Planner) PlanDetach(vpc spec.UID, e Endpoint, have Have) plan.Plan {
	if _, there := have.Links[e.Instance]; !there {
		return plan.Plan{}
	}
	return plan.Of(plan.NewStep(plan.Network, VerbDetach, string(e.Instance), "the instance is no longer wanted on this network",
		EndpointArgs{VPC: vpc, Endpoint: e}, plan.MakeID(plan.Isolation, "delete-task", string(e.Instance))))
}
