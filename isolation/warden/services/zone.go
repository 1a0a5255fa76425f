package services

import (
	"net/netip"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Zone is what one VPC's resolver knows by itself. A name in it is answered as
// "train-1", "train-1.<Domain>" and, for its addresses, in reverse.
type Zone struct {
	// Generation orders pushes; one older than what is served is refused.
	Generation uint64 `json:"generation"`
	Domain     string `json:"domain"` // "default.internal"
	Hosts      []Host `json:"hosts,omitempty"`
}

// Host is one instance.
type Host struct {
	Name      string       `json:"name"` // one label
	Addresses []netip.Addr `json:"addresses"`
}

// maxHosts bounds one zone: twice what a VPC is promised to hold.
const maxHosts = 8192

// Validate refuses names that are no RFC 1123 names and addresses that are none.
func (z Zone) Validate() error {
	if len(z.Domain) > 200 {
		return invalid("domain is longer than 200 bytes")
	}
	for label := range strings.SplitSeq(z.Domain, ".") {
		if !isLabel(label) {
			return invalid("domain %q is no DNS name", z.Domain)
		}
	}
	if len(z.Hosts) > maxHosts {
		return invalid("%d hosts, at most %d", len(z.Hosts), maxHosts)
	}
	for _, h := range z.Hosts {
		if !isLabel(h.Name) {
			return invalid("host %q is no DNS label", h.Name)
		}
		for _, a := range h.Addresses {
			if !a.IsValid() || a.Zone() != "" {
				return invalid("host %s has no plain address: %q", h.Name, a)
			}
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "set zone", format, args...)
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// VPC is one VPC as it is served.
type VPC struct {
	UID        spec.UID `json:"uid"`
	Generation uint64   `json:"generation"`
	Domain     string   `json:"domain"`
	Hosts      int      `json:"hosts"`
	Counters   Counters `json:"counters"`
}

// Counters of one VPC since it was set, or since the process started.
type Counters struct {
	Queries   uint64 `json:"queries"`
	Forwarded uint64 `json:"forwarded"` // sent to an upstream resolver
	Cached    uint64 `json:"cached"`    // answered from what an upstream said before
	Limited   uint64 `json:"limited"`   // refused because the VPC asked too much
	Failed    uint64 `json:"failed"`    // no upstream answered
}

// Status is the process as a whole.
type Status struct {
	Version   string   `json:"version"`
	Pid       int      `json:"pid"`
	VPCs      int      `json:"vpcs"`
	Upstreams []string `json:"upstreams"`
}
