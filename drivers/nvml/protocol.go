package nvml

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Version is the protocol's. Agent and helper come in one package, but an
// upgraded agent may meet the helper of before for a moment: it refuses it.
const Version = 2

// maxFrame bounds a frame; 64 GPUs all linked take less than 512 KiB.
const maxFrame = 4 << 20

// Method is a question to the helper.
type Method string

// The questions. Each but the first is about one GPU, so that one that hangs is
// known and can be left out.
const (
	MethodHost   Method = "host"
	MethodDevice Method = "device"
	MethodLinks  Method = "links" // of one GPU to others
	MethodSample Method = "sample"
)

// Hello is the first frame, sent by the helper once NVML is initialised or has
// refused to be.
type Hello struct {
	Version int      `json:"version"`
	Problem *Problem `json:"problem,omitempty"`
}

// Request is one question. There is one at a time.
type Request struct {
	ID     uint64 `json:"id"`
	Method Method `json:"method"`
	Index  int    `json:"index"`            // NVML's, of the GPU asked about
	Others []int  `json:"others,omitempty"` // the GPUs links are asked to
}

// Response answers the request of the same ID.
type Response struct {
	ID      uint64      `json:"id"`
	Problem *Problem    `json:"problem,omitempty"`
	Host    *Host       `json:"host,omitempty"`
	Device  *gpu.Device `json:"device,omitempty"`
	Links   []gpu.Link  `json:"links,omitempty"`
	Sample  *gpu.Sample `json:"sample,omitempty"`
}

// Host is what is not about one GPU.
type Host struct {
	DriverVersion string `json:"driverVersion"`
	CUDAVersion   string `json:"cudaVersion"`
	GPUs          int    `json:"gpus"` // indices below it may be asked about
}

// Problem is a fault on the wire.
type Problem struct {
	Kind fault.Kind `json:"kind"`
	What string     `json:"what"`
	Hint string     `json:"hint,omitempty"`
}

// ProblemOf makes an error fit for the wire; nil for nil.
func ProblemOf(err error) *Problem {
	if err == nil {
		return nil
	}
	return &Problem{Kind: fault.KindOf(err), What: err.Error(), Hint: fault.HintOf(err)}
}

// Err gives the fault back; nil for nil.
func (p *Problem) Err() error {
	if p == nil {
		return nil
	}
	return &fault.Error{Kind: p.Kind, What: p.What, Hint: p.Hint}
}

// WriteFrame writes a value as four bytes of length, big endian, and JSON.
func WriteFrame(w io.Writer, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(text) > maxFrame {
		return fmt.Errorf("write frame: %d bytes are more than %d", len(text), maxFrame)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)), uint32(len(text)))
	_, err = w.Write(append(frame, text...))
	return err
}

// ReadFrame reads one frame into value. Its end between frames is io.EOF.
func ReadFrame(r io.Reader, value any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return fmt.Errorf("read frame: %d bytes are more than %d", size, maxFrame)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}
