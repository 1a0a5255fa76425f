package api

import (
	"io"
	"net/http"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func getHealthz(_ *Server, c *call) error { return c.text(http.StatusOK, "ok\n") }

func getReadyz(s *Server, c *call) error {
	if s.options.Ready == nil {
		return c.text(http.StatusOK, "ok\n")
	}
	if err := s.options.Ready(c.r.Context()); err != nil {
		why := "not ready"
		if c.who.Role != "" { // names of instances are not for everybody
			why += ": " + err.Error()
		}
		return c.text(http.StatusServiceUnavailable, why+"\n")
	}
	return c.text(http.StatusOK, "ok\n")
}

func (c *call) text(status int, text string) error {
	c.w.Header().Set("Content-Type", typeText)
	c.w.WriteHeader(status)
	// A peer that went away is no news.
	_, _ = io.WriteString(c.w, text)
	return nil
}

func getMetrics(s *Server, c *call) error {
	if s.options.Metrics == nil {
		return fault.New(fault.NotFound, "metrics", "this agent has none")
	}
	s.options.Metrics.ServeHTTP(c.w, c.r)
	return nil
}

func getVersion(s *Server, _ *call) (Version, error) { return s.options.Version, nil }

func getCaller(_ *Server, c *call) (Caller, error) { return c.who, nil }

func getStatus(s *Server, c *call) (HostStatus, error) {
	return s.backend.Host.Status(c.r.Context())
}

// getGPUs shows a tenant what it holds and nothing of the others.
func getGPUs(s *Server, c *call) (List[GPU], error) {
	all, err := listOf(s.backend.Host.GPUs(c.r.Context()))
	if c.who.Role == RoleTenant {
		all.Items = slices.DeleteFunc(slices.Clone(all.Items), func(g GPU) bool { return g.Tenant != c.who.Tenant })
	}
	return all, err
}

func getLinks(s *Server, c *call) (List[gpu.Link], error) {
	return listOf(s.backend.Host.Links(c.r.Context()))
}

func postGPUAction(s *Server, c *call, in GPUActionRequest) (ChangeRef, error) {
	id := gpu.UUID(c.r.PathValue("uuid"))
	if in.Action != GPUQuarantine && in.Action != GPURelease {
		return ChangeRef{}, fault.New(fault.Invalid, "gpu "+string(id), "action %q is unknown", in.Action).
			WithHint("known: %s, %s", GPUQuarantine, GPURelease)
	}
	return s.backend.Host.SetGPU(c.r.Context(), c.who, id, in)
}

func getAudit(s *Server, c *call) (List[AuditReport], error) {
	return listOf(s.backend.Host.Audit(c.r.Context(), nil))
}

func getDoctor(s *Server, c *call) (List[CheckResult], error) {
	return listOf(s.backend.Host.Doctor(c.r.Context(), c.r.URL.Query()["check"]))
}

func getConfig(s *Server, c *call) (List[Setting], error) {
	return listOf(s.backend.Host.Config(c.r.Context()))
}

func postReload(s *Server, c *call) (ReloadResult, error) {
	return s.backend.Host.Reload(c.r.Context())
}

func postSim(s *Server, c *call, in SimRequest) (None, error) {
	return None{}, s.backend.Host.Break(c.r.Context(), in)
}

func deleteSim(s *Server, c *call) (None, error) {
	return None{}, s.backend.Host.Mend(c.r.Context())
}
