package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Attached is one device program found on a cgroup.
type Attached struct {
	ID  uint32
	Tag string // the kernel's hash of its instructions
	// Insns are the instructions as the kernel runs them.
	Insns asm.Instructions
}

// Is says whether the program is, instruction for instruction, the one of rules.
func (a Attached) Is(rules []Rule) (bool, error) {
	insns, err := Assemble(rules)
	if err != nil {
		return false, err
	}
	return insns.HasTag(a.Tag, byteOrder())
}

// byteOrder is this machine's, as the one of the two named values that the
// assembler compares with.
func byteOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// programSpec is what is loaded for a grant. The name shows in bpftool.
func programSpec(rules []Rule) (*ebpf.ProgramSpec, error) {
	insns, err := Assemble(rules)
	if err != nil {
		return nil, err
	}
	return &ebpf.ProgramSpec{
		Name:         "gpuhost_outer",
		Type:         ebpf.CGroupDevice,
		AttachType:   ebpf.AttachCGroupDevice,
		Instructions: insns,
		License:      "Apache-2.0", // no GPL-only helper is called
	}, nil
}

// replaceTries bounds how often a replacement starts again because somebody else
// changed the programs meanwhile.
const replaceTries = 10

// replace makes the program of rules the only one attached to dir itself. At no
// moment is there none where there was one: the kernel swaps the first in one
// step, and any further one goes after, which can only loosen towards the new.
func replace(dir *os.File, rules []Rule) error {
	return replaceFound(dir, rules, func() ([]Attached, error) { return attached(dir, 0) })
}

// replaceFound is replace with its look at what is attached. What was found may be
// gone a moment later: ENOENT says so, and then it looks again.
func replaceFound(dir *os.File, rules []Rule, find func() ([]Attached, error)) error {
	want, err := programSpec(rules)
	if err != nil {
		return err
	}
	for range replaceTries {
		if err = replaceOnce(dir, rules, want, find); !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// Not %w: whoever asks for ErrNotExist would take the cgroup for gone.
	return fault.New(fault.Busy, "replace device program of "+dir.Name(), "its programs changed %d times meanwhile: %v", replaceTries, err)
}

func replaceOnce(dir *os.File, rules []Rule, want *ebpf.ProgramSpec, find func() ([]Attached, error)) error {
	present, err := find()
	if err != nil {
		return err
	}
	if len(present) == 1 {
		if same, err := present[0].Is(rules); err != nil || same {
			return err
		}
	}
	program, err := ebpf.NewProgram(want)
	if err != nil {
		return fmt.Errorf("load device program: %w", err)
	}
	defer program.Close()
	if err := swap(dir, program, present); err != nil {
		return err
	}
	for _, extra := range present[min(1, len(present)):] {
		if err := detach(dir, extra.ID); err != nil {
			return err
		}
	}
	return nil
}

// swap attaches program in the place of the first of present, or beside none.
// ALLOW_MULTI lets runc attach its own below; the kernel asks both.
func swap(dir *os.File, program *ebpf.Program, present []Attached) error {
	opts := link.RawAttachProgramOptions{
		Target:  int(dir.Fd()),
		Program: program,
		Attach:  ebpf.AttachCGroupDevice,
		Flags:   unix.BPF_F_ALLOW_MULTI,
	}
	if len(present) > 0 {
		old, err := ebpf.NewProgramFromID(ebpf.ProgramID(present[0].ID))
		if err != nil {
			return fmt.Errorf("open device program %d: %w", present[0].ID, err)
		}
		defer old.Close()
		opts.Anchor = link.ReplaceProgram(old)
	}
	if err := link.RawAttachProgram(opts); err != nil {
		return fmt.Errorf("attach device program to %s: %w", dir.Name(), err)
	}
	return nil
}

func detach(dir *os.File, id uint32) error {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open device program %d: %w", id, err)
	}
	defer program.Close()
	err = link.RawDetachProgram(link.RawDetachProgramOptions{
		Target:  int(dir.Fd()),
		Program: program,
		Attach:  ebpf.AttachCGroupDevice,
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach device program %d from %s: %w", id, dir.Name(), err)
	}
	return nil
}

// attached reads the device programs of a cgroup: its own with no flag, its own
// and all above with BPF_F_QUERY_EFFECTIVE.
func attached(dir *os.File, flags uint32) ([]Attached, error) {
	result, err := link.QueryPrograms(link.QueryOptions{
		Target:     int(dir.Fd()),
		Attach:     ebpf.AttachCGroupDevice,
		QueryFlags: flags,
	})
	if err != nil {
		return nil, fmt.Errorf("query device programs of %s: %w", dir.Name(), err)
	}
	programs := make([]Attached, 0, len(result.Programs))
	for _, p := range result.Programs {
		one, err := read(p.ID)
		if err != nil {
			return nil, err
		}
		programs = append(programs, one)
	}
	return programs, nil
}

func read(id ebpf.ProgramID) (Attached, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return Attached{}, fmt.Errorf("open device program %d: %w", id, err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return Attached{}, fmt.Errorf("read device program %d: %w", id, err)
	}
	insns, err := info.Instructions()
	if err != nil {
		return Attached{}, fmt.Errorf("read instructions of device program %d: %w", id, err)
	}
	return Attached{ID: uint32(id), Tag: info.Tag, Insns: insns}, nil
}
