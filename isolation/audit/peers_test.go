package audit

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestPeersAreReadOncePerAge(t *testing.T) {
	var p peers
	var read []spec.UID
	now := time.Unix(0, 0)
	look := func(self spec.UID, listed ...spec.UID) map[spec.UID]Namespaces {
		t.Helper()
		read = nil
		got, err := p.get(listed, self, now, func(uid spec.UID) (Namespaces, error) {
			read = append(read, uid)
			if uid == "empty" {
				return nil, nil
			}
			return Namespaces{"net": "net:" + string(uid)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	wantRead := func(what string, uids ...spec.UID) {
		t.Helper()
		if diff := cmp.Diff(uids, read); diff != "" {
			t.Errorf("%s (-want +read):\n%s", what, diff)
		}
	}
	got := look("a", "a", "b", "empty")
	if diff := cmp.Diff(map[spec.UID]Namespaces{"b": {"net": "net:b"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantRead("at first", "a", "b", "empty")
	if got := look("b", "a", "b", "c", "empty"); len(got) != 2 {
		t.Errorf("b has %d peers, want 2", len(got))
	}
	wantRead("one is new and one has no process", "c", "empty")
	look("b", "a", "b")
	look("b", "a", "b", "c")
	wantRead("one that was gone", "c")
	now = now.Add(2 * peersAge)
	look("b", "a", "b")
	wantRead("later", "a", "b")
	p.forget()
	look("b", "a")
	wantRead("after a doubt", "a")
}
