//go:build cgo

package main

import (
	"bufio"
	"io"
	"os"
	"time"

	nvmllib "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/drivers/nvml"
)

// lastCall is how long a call that is under way when the agent goes may still
// take. After it the process ends under it.
const lastCall = time.Second

// serve says hello and answers one request after the other.
func serve(in io.Reader, out io.Writer, o options) error {
	requests := listen(in)
	lib, err := open(o)
	if err == nil {
		err = initialise(lib)
	}
	if err := nvml.WriteFrame(out, nvml.Hello{Version: nvml.Version, Problem: nvml.ProblemOf(err)}); err != nil {
		return err
	}
	if err != nil {
		return nil // said in the hello; there is nothing to answer
	}
	defer lib.Shutdown()
	r := newReader(lib)
	for q := range requests {
		if err := nvml.WriteFrame(out, answer(r, q)); err != nil {
			return err
		}
	}
	return nil
}

// listen reads requests from a goroutine of its own, so that the agent's end is
// noticed while a call hangs.
func listen(in io.Reader) <-chan nvml.Request {
	requests := make(chan nvml.Request)
	go func() {
		defer time.AfterFunc(lastCall, func() { os.Exit(1) })
		defer close(requests)
		buffered := bufio.NewReader(in)
		for {
			var q nvml.Request
			if nvml.ReadFrame(buffered, &q) != nil {
				return
			}
			requests <- q
		}
	}()
	return requests
}

func open(o options) (nvmllib.Interface, error) {
	if o.sim == "" {
		return nvmllib.New(), nil
	}
	s, err := sim.Find(o.sim)
	if err != nil {
		return nil, err
	}
	return simulate(s, o.seed, o.faults)
}

func initialise(lib nvmllib.Interface) error {
	switch ret := lib.Init(); ret {
	case nvmllib.SUCCESS:
		return nil
	case nvmllib.ERROR_LIBRARY_NOT_FOUND:
		return fault.New(fault.Unsupported, "initialise NVML", "libnvidia-ml.so.1 is not on this host").
			WithHint("install the NVIDIA driver, or try gpuhost with --sim dgx-h100")
	case nvmllib.ERROR_DRIVER_NOT_LOADED:
		return fault.New(fault.Unsupported, "initialise NVML", "the NVIDIA kernel module is not loaded").
			WithHint("modprobe nvidia")
	case nvmllib.ERROR_LIB_RM_VERSION_MISMATCH:
		return fault.New(fault.NeedsReboot, "initialise NVML", "library and kernel module are of different driver versions").
			WithHint("reload the kernel module or reboot")
	default:
		return fault.New(fault.Temporary, "initialise NVML", "%s", ret.Error())
	}
}

func answer(r *reader, q nvml.Request) nvml.Response {
	out := nvml.Response{ID: q.ID}
	var err error
	switch q.Method {
	case nvml.MethodHost:
		out.Host, err = r.host()
	case nvml.MethodDevice:
		out.Device, err = r.device(q.Index)
	case nvml.MethodLinks:
		out.Links, err = r.links(q.Index, q.Others)
	case nvml.MethodSample:
		out.Sample, err = r.sample(q.Index)
	default:
		err = fault.New(fault.Unsupported, "answer agent", "no method %q", q.Method)
	}
	out.Problem = nvml.ProblemOf(err)
	return out
}
