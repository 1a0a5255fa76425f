package service

import (
	"context"
	"testing"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
)

type breaks struct{ asked int }

func (b *breaks) Break(context.Context, api.SimRequest) error { b.asked++; return nil }
func (b *breaks) Mend(context.Context) error                  { b.asked++; return nil }

func TestWhatCanBeSimulated(t *testing.T) {
	for name, row := range map[string]struct {
		request api.SimRequest
		real    bool
		want    fault.Kind
	}{
		"an XID":                {api.SimRequest{Fault: api.SimXID, Value: 79}, false, ""},
		"a hang":                {api.SimRequest{Fault: api.SimHang}, false, ""},
		"no XID":                {api.SimRequest{Fault: api.SimXID}, false, fault.Invalid},
		"hotter than a fire":    {api.SimRequest{Fault: api.SimTemperature, Value: 1000}, false, fault.Invalid},
		"something else":        {api.SimRequest{Fault: "explode"}, false, fault.Invalid},
		"a GPU that is real":    {api.SimRequest{Fault: api.SimHang}, true, fault.Unsupported},
		"a real one, and badly": {api.SimRequest{Fault: "explode"}, true, fault.Unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			b := &breaks{}
			h := Host{Simulator: b}
			if row.real {
				h.Simulator = nil
			}
			err := h.Break(t.Context(), row.request)
			if (err != nil) != (row.want != "") || err != nil && !fault.Is(err, row.want) {
				t.Errorf("have %v, want %q", err, row.want)
			}
			if done := b.asked > 0; done != (row.want == "") {
				t.Errorf("done: %t", done)
			}
			if err := h.Mend(t.Context()); (err != nil) != row.real {
				t.Errorf("mend: %v", err)
			}
		})
	}
}
