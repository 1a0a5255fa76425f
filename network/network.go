// Package network thinks about addresses, links and rules: it turns VPCs and
// their endpoints into steps. Its sub-packages touch nftables, links and
// namespaces.
package network

import (
	"net/netip"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// VPC is all that one router namespace should hold on this host.
type VPC struct {
	UID     spec.UID         `json:"uid"` // of the Network object
	Tenant  string           `json:"tenant"`
	Name    string           `json:"name"`
	CIDR    netip.Prefix     `json:"cidr"`
	Transit Transit          `json:"transit"`
	Groups  map[string]Group `json:"groups"` // the tenant's security groups by name
	// Endpoints are the instances that have an address in this VPC and are wanted running.
	Endpoints []Endpoint `json:"endpoints"`
	// Protected are the operator's networks that no tenant may originate traffic to.
	Protected []netip.Prefix `json:"protected"`
}

// Transit is the link between the host's namespace and the router's: two
// addresses of one /31 from a pool of the host, journalled.
type Transit struct {
	Host   netip.Addr `json:"host"`
	Router netip.Addr `json:"router"`
}

// Group is a security group as written, with its generation.
type Group struct {
	Generation uint64                 `json:"generation"`
	Spec       spec.SecurityGroupSpec `json:"spec"`
}

// Endpoint is one instance's NIC.
type Endpoint struct {
	Instance spec.UID       `json:"instance"`
	Name     string         `json:"name"` // for DNS
	Address  netip.Addr     `json:"address"`
	Groups   []string       `json:"groups"` // in bound order
	Publish  []spec.Publish `json:"publish,omitempty"`
	// Netns is the pinned namespace of the instance's task; it exists from
	// isolation's "create" step on.
	Netns string `json:"netns"`
}
