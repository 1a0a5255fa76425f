package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/network"
)

// meterEvery is how much of running instances' traffic a host may lose that loses
// its power: what the kernel counted since it was journalled last.
const meterEvery = 5 * time.Minute

// noteMeters journals what a VPC's plan does to the counters of instances, before it
// is done. The caller holds the VPC's lane.
func (l *Loop) noteMeters(ctx context.Context, vpc spec.UID, p plan.Plan, have network.Have) error {
	end, begin := network.Metered(p, have)
	if len(end) > 0 {
		readings, err := l.Network.Counters(ctx, vpc)
		if err != nil {
			return err
		}
		for _, uid := range end {
			if err := l.meter(uid, func(m network.Meter) network.Meter { return m.Note(readings[uid]) }); err != nil {
				return err
			}
		}
	}
	for _, uid := range begin {
		if err := l.meter(uid, network.Meter.Begin); err != nil {
			return err
		}
	}
	return nil
}

// meter changes an instance's meter; what stays as it is is not written.
func (l *Loop) meter(uid spec.UID, change func(network.Meter) network.Meter) error {
	record, err := l.Store.Record(uid)
	if err != nil || change(record.Traffic) == record.Traffic {
		return err
	}
	return l.Store.UpdateRecord(uid, func(r *store.Record) { r.Traffic = change(r.Traffic) })
}

// errMoved says that counters began or ended while they were read.
var errMoved = errors.New("counters changed hands")

// meterTries bounds how often counters are read again because they changed hands.
const meterTries = 3

// Traffic is what every instance sent and received in all its runs, stopped ones
// included.
func (l *Loop) Traffic(ctx context.Context) (map[spec.UID]network.Traffic, error) {
	for try := 1; ; try++ {
		totals, err := l.traffic(ctx)
		if !errors.Is(err, errMoved) || try == meterTries {
			return totals, err
		}
	}
}

func (l *Loop) traffic(ctx context.Context) (map[spec.UID]network.Traffic, error) {
	before, err := l.meters()
	if err != nil {
		return nil, err
	}
	networks, err := l.Store.List(spec.KindNetwork, "")
	if err != nil {
		return nil, err
	}
	readings := make(map[spec.UID]network.Traffic)
	for _, o := range networks {
		counters, err := l.Network.Counters(ctx, o.Metadata.UID)
		if err != nil {
			return nil, err
		}
		maps.Copy(readings, counters)
	}
	after, err := l.meters()
	if err != nil {
		return nil, err
	}
	totals := make(map[spec.UID]network.Traffic, len(after))
	for uid, meter := range after {
		if was, there := before[uid]; there && was != meter {
			return nil, errMoved
		}
		totals[uid] = meter.At(readings[uid])
	}
	return totals, nil
}

func (l *Loop) meters() (map[spec.UID]network.Meter, error) {
	instances, err := l.Store.List(spec.KindInstance, "")
	if err != nil {
		return nil, err
	}
	meters := make(map[spec.UID]network.Meter, len(instances))
	for _, o := range instances {
		record, err := l.Store.Record(o.Metadata.UID)
		if err != nil {
			return nil, err
		}
		meters[o.Metadata.UID] = record.Traffic
	}
	return meters, nil
}

// meterRounds journals the counters of running instances from time to time, until
// ctx ends. A VPC that is being worked at has its turn the next time.
func (l *Loop) meterRounds(ctx context.Context) {
	for pause(ctx, meterEvery) {
		networks, err := l.Store.List(spec.KindNetwork, "")
		if err != nil {
			l.Log.Error("list networks to meter", "error", err)
		}
		for _, o := range networks {
			uid := o.Metadata.UID
			err := l.lanes.try(ctx, vpcLane+string(uid), func(ctx context.Context) error { return l.meterAll(ctx, uid) })
			if err != nil && !errors.Is(err, errBusy) && ctx.Err() == nil {
				l.Log.Warn("meter", "object", o.Ref().String(), "error", err)
			}
		}
	}
}

func (l *Loop) meterAll(ctx context.Context, vpc spec.UID) error {
	readings, err := l.Network.Counters(ctx, vpc)
	if err != nil {
		return err
	}
	for _, uid := range slices.Sorted(maps.Keys(readings)) {
		if err := l.meter(uid, func(m network.Meter) network.Meter { return m.Note(readings[uid]) }); err != nil {
			return err
		}
	}
	return nil
}
