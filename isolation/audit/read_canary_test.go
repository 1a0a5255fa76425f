package audit

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// lateCanary finds nothing where the nodes should be, once before has happened.
type lateCanary func()

func (before lateCanary) Canary(_ context.Context, _ spec.UID, t canary.Tries) (canary.Answer, error) {
	before()
	missing := func(nodes []canary.Node) (out []canary.Result) {
		for _, n := range nodes {
			out = append(out, canary.Result{Path: n.Path, Major: n.Major, Minor: n.Minor, Errno: unix.ENOENT})
		}
		return out
	}
	return canary.Answer{Root: missing(t.Root), Tenant: missing(t.Tenant)}, nil
}

// A neighbour's end during the audit once fenced an instance that had done nothing.
func TestNodesOfANeighbourThatEndsAreNoFinding(t *testing.T) {
	for name, row := range map[string]struct {
		ends bool
		want int
	}{"ended": {true, 0}, "is there, yet was not found": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			paths := isolation.Paths{Nodes: t.TempDir()}
			node := filepath.Join(paths.NodeDir("bbbbbbbb"), "nvidia3")
			if err := os.MkdirAll(filepath.Dir(node), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(node, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			a := New(Config{Paths: paths, UVMMajor: uvm, Canary: lateCanary(func() {
				if row.ends {
					os.Remove(node)
				}
			})})
			lease := isolation.Lease{UID: "aaaaaaaa", IDs: isolation.IDRange{Start: 1 << 20, Size: 1 << 16}}
			got, err := a.try(t.Context(), Want{Lease: lease})
			if err != nil || len(got.Tenant) != row.want {
				t.Errorf("%v, %v, want %d results", got, err, row.want)
			}
		})
	}
}
