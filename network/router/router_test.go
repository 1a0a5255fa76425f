package router_test

import (
	"testing"
)

func TestInsideOneVPC(t *testing.T) {
	w := newWorld(t)
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web")
	w.endpoint(v, "def1", "10.0.1.11", "default")
	w.endpoint(v, "def2", "10.0.1.12", "default")
	w.converge(v.UID, v)
	for _, port := range []int{80, 81, 2005} {
		w.serve("web1", port)
		w.serve("def2", port)
	}
	if seen := w.reaches("def1", "10.0.1.10", 80); seen != "10.0.1.11" {
		t.Errorf("the server saw %s, want the instance's own address", seen)
	}
	w.reaches("def1", "10.0.1.10", 2005)
	w.refused("def1", "10.0.1.10", 81)
	w.reaches("def1", "10.0.1.12", 81) // default accepts its members
	w.refused("web1", "10.0.1.12", 81) // and nobody else
	if !w.pings("def1", "10.0.1.10") {
		t.Error("ping that a rule allows is not answered")
	}
	if w.pings("web1", "10.0.1.11") {
		t.Error("ping that no rule allows is answered")
	}
}
