package apitest

import (
	"context"
	"io"
	"slices"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Status implements api.Host.
func (b *Backend) Status(context.Context) (api.HostStatus, error) {
	return b.Machine, b.failure("Status")
}

// GPUs implements api.Host.
func (b *Backend) GPUs(context.Context) ([]api.GPU, error) { return b.Devices, b.failure("GPUs") }

// Links implements api.Host.
func (b *Backend) Links(context.Context) ([]gpu.Link, error) { return b.Wires, b.failure("Links") }

// SetGPU implements api.Host.
func (b *Backend) SetGPU(_ context.Context, who api.Caller, id gpu.UUID, request api.GPUActionRequest) (api.ChangeRef, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.begin(who, spec.Ref{Kind: "GPU", Name: string(id)}, string(request.Action)), b.fail["SetGPU"]
}

// Audit implements api.Host.
func (b *Backend) Audit(_ context.Context, refs []spec.Ref) ([]api.AuditReport, error) {
	var found []api.AuditReport
	for _, report := range b.Reports {
		if len(refs) == 0 || slices.Contains(refs, report.Object) {
			found = append(found, report)
		}
	}
	return found, b.failure("Audit")
}

// Doctor implements api.Host.
func (b *Backend) Doctor(_ context.Context, checks []string) ([]api.CheckResult, error) {
	var found []api.CheckResult
	for _, check := range b.Checks {
		if len(checks) == 0 || slices.Contains(checks, check.Name) {
			found = append(found, check)
		}
	}
	if len(found) < len(checks) {
		return nil, fault.New(fault.NotFound, "doctor", "there is no such check")
	}
	return found, b.failure("Doctor")
}

// Config implements api.Host.
func (b *Backend) Config(context.Context) ([]api.Setting, error) {
	return b.Settings, b.failure("Config")
}

// Reload implements api.Host.
func (b *Backend) Reload(context.Context) (api.ReloadResult, error) {
	return api.ReloadResult{Waiting: b.Waiting}, b.failure("Reload")
}

// Break implements api.Host.
func (b *Backend) Break(_ context.Context, request api.SimRequest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Broken = append(b.Broken, request)
	return b.fail["Break"]
}

// Mend implements api.Host.
func (b *Backend) Mend(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Broken = nil
	return b.fail["Mend"]
}

func (b *Backend) failure(method string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fail[method]
}

// imageStore gives the backend's images their own List.
type imageStore struct{ *Backend }

// List implements api.Images.
func (s imageStore) List(_ context.Context, tenant string) ([]api.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.images), func(i api.Image) bool { return tenant != "" && i.Tenant != tenant }), s.fail["Images"]
}

// Pull implements api.Images.
func (s imageStore) Pull(_ context.Context, who api.Caller, request api.PullRequest) (api.ChangeRef, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begin(who, spec.Ref{Kind: "Image", Tenant: request.Tenant, Name: request.Image}, "pull"), s.fail["Pull"]
}

// Import implements api.Images: the image is as large as what was read.
func (s imageStore) Import(_ context.Context, _ api.Caller, request api.ImportRequest, archive io.Reader) ([]api.Image, error) {
	n, err := io.Copy(io.Discard, archive)
	if err != nil {
		return nil, err
	}
	if request.Size >= 0 && n != request.Size {
		return nil, fault.New(fault.Invalid, "import", "%d bytes came, %d were announced", n, request.Size)
	}
	image := api.Image{Tenant: request.Tenant, Name: request.Name, Digest: "sha256:0123456789abcdef0123", Bytes: n}
	s.AddImage(image)
	return []api.Image{image}, s.failure("Import")
}

// Remove implements api.Images.
func (s imageStore) Remove(_ context.Context, _ api.Caller, tenant, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.images, func(i api.Image) bool { return i.Tenant == tenant && i.Name == name })
	if i < 0 {
		return fault.New(fault.NotFound, "image "+name, "tenant %s has none", tenant).WithHint("gpuhost image list")
	}
	if len(s.images[i].UsedBy) > 0 {
		return fault.New(fault.Busy, "image "+name, "instance %s uses it", s.images[i].UsedBy[0])
	}
	s.images = slices.Delete(s.images, i, i+1)
	return nil
}

// Prune implements api.Images.
func (s imageStore) Prune(_ context.Context, _ api.Caller, tenant string) (api.PruneResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var result api.PruneResult
	s.images = slices.DeleteFunc(s.images, func(i api.Image) bool {
		unused := len(i.UsedBy) == 0 && (tenant == "" || i.Tenant == tenant)
		if unused {
			result.Removed = append(result.Removed, i)
			result.FreedBytes += i.Bytes
		}
		return unused
	})
	return result, s.fail["Prune"]
}
