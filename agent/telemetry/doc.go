// Package telemetry holds what Prometheus scrapes: the agent's own names and,
// for dashboards made for it, those of NVIDIA's DCGM exporter.
//
// Whoever collects hands in snapshots on its own clock; a scrape renders the
// last one and calls neither NVML nor the kernel. What a device does not
// support is absent, never zero. A snapshot replaces the one before it, so the
// series of a GPU, a server or a tenant that is gone disappear with it.
//
//	metrics := telemetry.New(build, telemetry.Options{Hostname: host})
//	metrics.SetGPUs(inventory, samples, owners)
//	mux.Handle("/metrics", metrics.Handler())
package telemetry
