//go:build cgo

package main

import (
	"testing"

	nvmllib "github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
)

// TestProcessesThatCannotBeListedAreNotNone: an error is no empty list.
func TestProcessesThatCannotBeListedAreNotNone(t *testing.T) {
	const none = -1
	for name, row := range map[string]struct {
		compute, graphics, mps nvmllib.Return
		want                   int
	}{
		"all three":          {nvmllib.SUCCESS, nvmllib.SUCCESS, nvmllib.SUCCESS, 2},
		"a compute-only GPU": {nvmllib.SUCCESS, nvmllib.ERROR_NOT_SUPPORTED, nvmllib.ERROR_NOT_SUPPORTED, 1},
		"compute refused":    {nvmllib.ERROR_NO_PERMISSION, nvmllib.SUCCESS, nvmllib.SUCCESS, none},
		"compute unknown":    {nvmllib.ERROR_NOT_SUPPORTED, nvmllib.SUCCESS, nvmllib.SUCCESS, none},
		"graphics fails":     {nvmllib.SUCCESS, nvmllib.ERROR_UNKNOWN, nvmllib.SUCCESS, none},
		"MPS fails":          {nvmllib.SUCCESS, nvmllib.SUCCESS, nvmllib.ERROR_GPU_IS_LOST, none},
	} {
		t.Run(name, func(t *testing.T) {
			list := func(ret nvmllib.Return, pids ...uint32) func() ([]nvmllib.ProcessInfo, nvmllib.Return) {
				return func() ([]nvmllib.ProcessInfo, nvmllib.Return) {
					if ret != nvmllib.SUCCESS {
						return nil, ret
					}
					var all []nvmllib.ProcessInfo
					for _, p := range pids {
						all = append(all, nvmllib.ProcessInfo{Pid: p})
					}
					return all, ret
				}
			}
			have := none
			if n := processes(&mock.Device{
				GetComputeRunningProcessesFunc:    list(row.compute, 7),
				GetGraphicsRunningProcessesFunc:   list(row.graphics, 7, 8),
				GetMPSComputeRunningProcessesFunc: list(row.mps),
			}); n != nil {
				have = *n
			}
			if have != row.want {
				t.Errorf("have %d, want %d", have, row.want)
			}
		})
	}
}
