package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// The oldest versions that do what is asked of them here: user namespaces with
// idmapped root file systems, shim socket folders, isolated content.
const (
	minContainerd = "2.3.0"
	minRunc       = "1.5.2"
)

// Versions are those of the installed runtime.
type Versions struct {
	Containerd string `json:"containerd"`
	Runc       string `json:"runc"`
}

// features is the part of "runc features" that matters here.
type features struct {
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		Namespaces      []string               `json:"namespaces"`
		Cgroup          struct{ V2 bool }      `json:"cgroup"`
		Seccomp         struct{ Enabled bool } `json:"seccomp"`
		MountExtensions struct {
			IDMap struct{ Enabled bool }
		} `json:"mountExtensions"`
	} `json:"linux"`
}

// CheckVersions asks the installed binaries what they are and refuses, with
// what to install, those that cannot hold a tenant.
func CheckVersions(ctx context.Context, bin string) (Versions, error) {
	what := "check container runtime"
	text, err := run(ctx, bin, "containerd", "--version")
	if err != nil {
		return Versions{}, missing(what, "containerd", err)
	}
	v := Versions{Containerd: versionIn(text)}
	text, err = run(ctx, bin, "runc", "features")
	if err != nil {
		return v, missing(what, "runc", err)
	}
	var f features
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return v, fault.New(fault.Unsupported, what, "read runc features: %w", err)
	}
	v.Runc = f.Annotations["org.opencontainers.runc.version"]
	if older(v.Containerd, minContainerd) || older(v.Runc, minRunc) {
		return v, fault.New(fault.Unsupported, what, "containerd %s and runc %s are older than %s and %s", v.Containerd, v.Runc, minContainerd, minRunc).
			WithHint("install the package gpuhost-runtime")
	}
	if lacks := f.lacks(); lacks != "" {
		return v, fault.New(fault.Unsupported, what, "this runc was built without %s", lacks).
			WithHint("install the package gpuhost-runtime")
	}
	return v, nil
}

func (f features) lacks() string {
	switch {
	case !f.Linux.Seccomp.Enabled:
		return "seccomp"
	case !f.Linux.Cgroup.V2:
		return "cgroup v2"
	case !f.Linux.MountExtensions.IDMap.Enabled:
		return "idmapped mounts"
	}
	for _, kind := range []string{"user", "pid", "mount", "ipc", "uts", "network", "cgroup", "time"} {
		if !slices.Contains(f.Linux.Namespaces, kind) {
			return kind + " namespaces"
		}
	}
	return ""
}

func run(ctx context.Context, bin, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, name), args...).Output()
	return string(out), err
}

func missing(what, name string, err error) error {
	return fault.New(fault.Unsupported, what, "run %s: %w", name, err).WithHint("install the package gpuhost-runtime")
}

// versionIn finds the version in "containerd github.com/… v2.4.2 <revision>".
func versionIn(text string) string {
	for _, word := range strings.Fields(text) {
		if _, ok := numbers(word); ok {
			return strings.TrimPrefix(word, "v")
		}
	}
	return ""
}

// older says whether version is before least; one that is no version is.
func older(version, least string) bool {
	have, ok := numbers(version)
	want, _ := numbers(least)
	return !ok || slices.Compare(have[:], want[:]) < 0
}

// numbers are the three of "v2.4.2" or "2.4.2-rc.1"; a candidate counts as its release.
func numbers(version string) (n [3]int, ok bool) {
	_, err := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d.%d", &n[0], &n[1], &n[2])
	return n, err == nil
}
