package network

import (
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// Class is what a flow counts as: the remote end decides.
type Class string

// The classes.
const (
	Intranet Class = "intranet"
	Internet Class = "internet"
)

// Direction is seen from the instance.
type Direction string

// The directions.
const (
	Ingress Direction = "ingress"
	Egress  Direction = "egress"
)

// Count is a counter's reading. It only grows while the endpoint stands.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"` // of IP packets, headers included
}

// Traffic is what one instance sent and received since its endpoint was made.
type Traffic struct {
	IntranetIngress Count `json:"intranetIngress"`
	IntranetEgress  Count `json:"intranetEgress"`
	InternetIngress Count `json:"internetIngress"`
	InternetEgress  Count `json:"internetEgress"`
}

// trafficOf picks an instance's counters out of a table's.
func trafficOf(instance spec.UID, counters map[string]Count) Traffic {
	read := func(class Class, direction Direction) Count {
		return counters[counterName(instance, class, direction)]
	}
	return Traffic{
		IntranetIngress: read(Intranet, Ingress), IntranetEgress: read(Intranet, Egress),
		InternetIngress: read(Internet, Ingress), InternetEgress: read(Internet, Egress),
	}
}

// instanceOfCounter finds whose counter a name is.
func instanceOfCounter(name string) (spec.UID, bool) {
	parts := strings.Split(name, "_")
	if len(parts) != 4 || parts[0] != "c" {
		return "", false
	}
	return spec.UID(parts[1]), true
}
