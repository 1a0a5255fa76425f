package reconcile

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// checkPorts looks at the host's ports that are published newly. A port is
// redirected on every address of the host, so it must not be one that the host
// itself answers on: neither its own services nor, where the caller is a tenant,
// those that may come.
func (a Admission) checkPorts(before, after []*spec.Object) error {
	had := published(before)
	now := published(after)
	for _, port := range slices.SortedFunc(maps.Keys(now), comparePorts) {
		if had[port] != nil {
			continue
		}
		what := "publish " + now[port].Ref().String() + " on the host's port " + strconv.Itoa(int(port.HostPort)) + "/" + port.Protocol
		if a.Bounded && !slices.ContainsFunc(a.Ports, func(r spec.PortRange) bool { return r.Contains(port.HostPort) }) {
			return fault.New(fault.Forbidden, what, "tenants may publish on %v", a.Ports).
				WithHint("choose another port, or ask the operator, whose setting network.publish_ports it is")
		}
		if a.Listens != nil && a.Listens(port) {
			return fault.New(fault.Conflict, what, "something on the host listens there").
				WithHint("choose another port, or see what it is: ss -lntup")
		}
	}
	return nil
}

// published are the host's ports in use, without the instances' own, and by whom.
func published(objects []*spec.Object) map[spec.Publish]*spec.Object {
	ports := make(map[spec.Publish]*spec.Object)
	for _, o := range live(objects) {
		for _, p := range instanceOf(o).Publish {
			ports[spec.Publish{HostPort: p.HostPort, Protocol: p.Protocol}] = o
		}
	}
	return ports
}

func comparePorts(x, y spec.Publish) int {
	if x.HostPort != y.HostPort {
		return int(x.HostPort) - int(y.HostPort)
	}
	return strings.Compare(x.Protocol, y.Protocol)
}
