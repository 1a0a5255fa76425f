package resolver

import (
	"maps"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// handover is the passing of everything to one successor. It is begun once and ended
// once, by Abort or by Commit; between them the server reads nothing and is changed by
// nobody.
type handover struct {
	server *Server
	vpcs   []*vpc
}

// handOver stops all reading, so that what arrives waits in the sockets for the
// successor, and holds what that needs.
func (s *Server) handOver() (*handover, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handing {
		return nil, fault.New(fault.Conflict, "hand over", "another successor is taking over")
	}
	s.handing = true
	h := &handover{server: s}
	for _, uid := range slices.Sorted(maps.Keys(s.vpcs)) {
		s.pause(s.vpcs[uid])
		h.vpcs = append(h.vpcs, s.vpcs[uid])
	}
	return h, nil
}

// Abort goes on after a successor that did not come to serve. A VPC whose sockets
// cannot be read again is let go of: the agent finds it missing and brings new ones.
func (h *handover) Abort() (lost []spec.UID) {
	s := h.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handing = false
	for _, v := range h.vpcs {
		next, err := v.serve(v.sockets)
		if err != nil {
			s.retire(v)
			delete(s.vpcs, v.uid)
			lost = append(lost, v.uid)
			continue
		}
		v.serving = next
	}
	return lost
}

// Commit ends the service: the successor serves.
func (h *handover) Commit() { close(h.server.taken) }
