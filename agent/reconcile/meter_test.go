package reconcile

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/network"
)

// Whatever runs end and begin, and wherever the agent ends: every packet is in the
// total once, those of the last moment before a stop too, and the total never goes
// back.
func TestEveryPacketIsInTheTotalOnce(t *testing.T) {
	for n := 0; ; n++ {
		finished := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { finished = meterCrashAt(t, n) })
		})
		if finished && n > 0 || t.Failed() {
			return
		}
	}
}

// metering is what is true and what is told of one instance's traffic.
type metering struct {
	*bench
	sent uint64
	told uint64
}

// send has the instance send, and compares what is told.
func (m *metering) send(where string) {
	m.t.Helper()
	uid := m.get("a").Metadata.UID
	if m.packet(uid) {
		m.sent++
	}
	totals, err := m.loop.Traffic(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	now := totals[uid].InternetEgress
	if now.Packets != m.sent || now.Bytes != 100*m.sent || now.Packets < m.told {
		m.t.Errorf("%s: %+v is told, before %d; sent were %d packets", where, now, m.told, m.sent)
	}
	m.told = now.Packets
}

func meterCrashAt(t *testing.T, n int) (finished bool) {
	m := &metering{bench: newBench(t)}
	defer m.halt()
	m.run()
	m.write(instance("a", 0), instance("b", 0))
	settle()
	m.send("at the beginning")
	passed, crashed := 0, false
	m.at = func(when string, s plan.Step) {
		m.send(when + " " + string(s.ID))
		m.mu.Lock()
		defer m.mu.Unlock()
		if passed++; passed == n {
			crashed = true
			m.cancel()
		}
	}
	for i, act := range []func(){
		func() { m.verb("a", "stop") }, func() { m.verb("a", "start") },
		func() { m.verb("b", "stop") }, func() { m.verb("a", "stop") }, // the last of its network
		func() { m.verb("a", "start") }, func() { m.verb("a", "restart") },
	} {
		act()
		settle()
		if m.crashedOnce(crashed) {
			m.halt()
			m.at = nil
			m.run()
			settle()
		}
		m.send(fmt.Sprint("after act ", i))
	}
	if m.sent < 5 {
		t.Errorf("only %d packets were sent", m.sent)
	}
	return !crashed
}

// Counters that others took away, and that count anew, are no reason to go back.
func TestAMeterSurvivesLostCounters(t *testing.T) {
	of := func(packets uint64) network.Traffic {
		return network.Traffic{IntranetIngress: network.Count{Packets: packets, Bytes: packets}}
	}
	m := network.Meter{}.Note(of(10)).Note(of(10)).Note(of(12))
	for _, step := range []struct {
		m       network.Meter
		reading uint64
		want    uint64
	}{
		{m, 12, 12}, {m, 15, 15}, {m, 0, 12}, {m, 3, 15},
		{m.Begin(), 0, 12}, {m.Begin(), 20, 32}, {m.Begin().Note(of(3)), 3, 15}, {m.Begin().Note(of(3)).Begin(), 1, 16},
	} {
		if got := step.m.At(of(step.reading)); got != of(step.want) {
			t.Errorf("%+v at %d is %+v, want %d", step.m, step.reading, got, step.want)
		}
	}
}
