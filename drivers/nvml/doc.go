// Package nvml talks to the NVML helper: a process of its own, because NVML may
// hang in the kernel for ever and its library cannot be unloaded.
//
// The agent imports this package and stays free of cgo; only the program in
// helper/ links go-nvml. Both sides speak frames of JSON over the helper's
// standard input and output. A call that passes its deadline is not waited for:
// the helper is counted as hung, killed and abandoned, and the next call finds a
// new one. A GPU whose reading hung is left out for a while, so that it does not
// cost the others their readings.
//
//	client, err := nvml.Start(ctx, nvml.Options{Path: "/usr/libexec/gpuhost/nvml-helper"})
//	defer client.Close()
//	inventory, err := client.Inventory(ctx)
package nvml
