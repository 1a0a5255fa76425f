package cgroup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Access is one question the kernel puts to a device program.
type Access struct {
	Type  uint16 // unix.BPF_DEVCG_DEV_CHAR or _BLOCK
	Mode  uint16 // unix.BPF_DEVCG_ACC_MKNOD, _READ, _WRITE, or a sum of them
	Major uint32
	Minor uint32
}

// String gives "char 195:0 rw".
func (a Access) String() string {
	kind := "char"
	if a.Type == unix.BPF_DEVCG_DEV_BLOCK {
		kind = "block"
	}
	mode := ""
	for _, m := range []struct {
		bit  uint16
		text string
	}{{unix.BPF_DEVCG_ACC_READ, "r"}, {unix.BPF_DEVCG_ACC_WRITE, "w"}, {unix.BPF_DEVCG_ACC_MKNOD, "m"}} {
		if a.Mode&m.bit != 0 {
			mode += m.text
		}
	}
	return fmt.Sprintf("%s %d:%d %s", kind, a.Major, a.Minor, mode)
}

// errForeign is the answer for a program that uses more of BPF than device
// filters do. What cannot be understood cannot be vouched for.
var errForeign = errors.New("instruction no device filter needs")

// meaning is what a register holds.
type meaning int

const (
	isPlain   meaning = iota // a constant, or what was made of type and access
	isNumber                 // the major or minor of the device, unchanged
	isContext                // the address of struct bpf_cgroup_dev_ctx
	isForeign                // an address that no filter needs
)

// value is what a register holds: device numbers may be copied and compared with
// constants, and nothing else, or [Excess] could not know all that they decide.
type value struct {
	bits uint64
	is   meaning
}

type registers [asm.RFP + 1]value

// Decide runs a device program, as read from the kernel or assembled here, on
// one question. It understands what runc's and our programs use: loads from the
// context, 32- and 64-bit moves, and, shifts and forward jumps.
func Decide(insns asm.Instructions, a Access) (bool, error) {
	targets, err := jumpTargets(insns)
	if err != nil {
		return false, err
	}
	return decide(insns, targets, a)
}

func decide(insns asm.Instructions, targets []int, a Access) (bool, error) {
	var reg registers
	reg[asm.R1].is, reg[asm.RFP].is = isContext, isForeign
	for pc := 0; pc < len(insns); {
		ins := insns[pc]
		next := pc + 1
		switch class := ins.OpCode.Class(); {
		case class == asm.LdXClass:
			word, err := contextWord(&reg, ins, a)
			if err != nil {
				return false, err
			}
			reg[ins.Dst] = word
		case class.IsALU():
			if err := calculate(&reg, ins); err != nil {
				return false, err
			}
		case ins.OpCode.JumpOp() == asm.Exit:
			if reg[asm.R0].is != isPlain {
				return false, fmt.Errorf("interpret a verdict that is no constant: %w", errForeign)
			}
			return reg[asm.R0].bits != 0, nil
		case class.IsJump():
			taken, err := jumps(&reg, ins)
			if err != nil {
				return false, err
			}
			if taken {
				next = targets[pc]
			}
		default:
			return false, fmt.Errorf("interpret %v: %w", ins, errForeign)
		}
		pc = next
	}
	return false, errors.New("interpret device program: it does not end")
}

// jumpTargets resolves labels and offsets into indexes. Only forward jumps pass,
// so that every program ends.
func jumpTargets(insns asm.Instructions) ([]int, error) {
	symbols := map[string]int{}
	for i, ins := range insns {
		if s := ins.Symbol(); s != "" {
			symbols[s] = i
		}
	}
	targets := make([]int, len(insns))
	for i, ins := range insns {
		if ins.OpCode.IsDWordLoad() || ins.Dst > asm.RFP || ins.Src > asm.RFP {
			return nil, fmt.Errorf("interpret %v: %w", ins, errForeign)
		}
		if !ins.OpCode.Class().IsJump() || ins.OpCode.JumpOp() == asm.Exit {
			continue
		}
		if ins.OpCode.JumpOp() == asm.Ja && ins.OpCode.Class() == asm.Jump32Class {
			return nil, fmt.Errorf("interpret %v: %w", ins, errForeign) // its offset lies elsewhere
		}
		target := i + 1 + int(ins.Offset)
		if ref := ins.Reference(); ref != "" {
			at, ok := symbols[ref]
			if !ok {
				return nil, fmt.Errorf("interpret jump to %q: no such label", ref)
			}
			target = at
		}
		if target <= i || target >= len(insns) {
			return nil, fmt.Errorf("interpret jump from %d to %d: %w", i, target, errForeign)
		}
		targets[i] = target
	}
	return targets, nil
}

// contextWord loads from struct bpf_cgroup_dev_ctx.
func contextWord(reg *registers, ins asm.Instruction, a Access) (value, error) {
	if ins.OpCode.Mode() == asm.MemMode && ins.OpCode.Size() == asm.Word && reg[ins.Src].is == isContext {
		switch ins.Offset {
		case 0:
			return value{bits: uint64(a.Mode)<<16 | uint64(a.Type)}, nil
		case 4:
			return value{uint64(a.Major), isNumber}, nil
		case 8:
			return value{uint64(a.Minor), isNumber}, nil
		}
	}
	return value{}, fmt.Errorf("interpret %v: %w", ins, errForeign)
}

// operand is the second value of a calculation or comparison; immediates are
// sign-extended, as in the kernel.
func operand(reg *registers, ins asm.Instruction) value {
	if ins.OpCode.Source() == asm.RegSource {
		return reg[ins.Src]
	}
	return value{bits: uint64(ins.Constant)}
}

func calculate(reg *registers, ins asm.Instruction) error {
	left, right := reg[ins.Dst], operand(reg, ins)
	narrow := ins.OpCode.Class() == asm.ALUClass
	if narrow {
		left.bits, right.bits = uint64(uint32(left.bits)), uint64(uint32(right.bits))
	}
	op := ins.OpCode.ALUOp()
	switch {
	case ins.Offset != 0: // with a sign extended, since Linux 6.6
	case op == asm.Mov && (right.is == isPlain || right.is == isNumber || !narrow):
		reg[ins.Dst] = right // a device number has 32 bits
		return nil
	case left.is != isPlain || right.is != isPlain:
	case op == asm.And:
		reg[ins.Dst].bits = left.bits & right.bits
		return nil
	case op == asm.RSh && narrow:
		reg[ins.Dst].bits = left.bits >> (right.bits & 31)
		return nil
	case op == asm.RSh:
		reg[ins.Dst].bits = left.bits >> (right.bits & 63)
		return nil
	}
	return fmt.Errorf("interpret %v: %w", ins, errForeign)
}

func jumps(reg *registers, ins asm.Instruction) (bool, error) {
	op := ins.OpCode.JumpOp()
	if op == asm.Ja {
		return true, nil
	}
	left, right := reg[ins.Dst], operand(reg, ins)
	comparable := left.is == isPlain && right.is == isPlain ||
		left.is == isNumber && ins.OpCode.Source() == asm.ImmSource
	if !comparable || (op != asm.JEq && op != asm.JNE) {
		return false, fmt.Errorf("interpret %v: %w", ins, errForeign)
	}
	if ins.OpCode.Class() == asm.Jump32Class {
		left.bits, right.bits = uint64(uint32(left.bits)), uint64(uint32(right.bits))
	}
	return (left.bits == right.bits) == (op == asm.JEq), nil
}

// Excess lists what a program lets through beyond the permitted: one example
// for each device. It is exhaustive: types and accesses are all tried, and device
// numbers are compared with constants only (anything else is refused as foreign),
// so a program treats every number it does not name alike. One that no device can
// have stands for them: no permission is made for it alone.
func Excess(insns asm.Instructions, permitted func(Access) bool) ([]Access, error) {
	targets, err := jumpTargets(insns)
	if err != nil {
		return nil, err
	}
	var excess []Access
	numbers := distinct(insns)
	for _, major := range append(slices.Clip(numbers), unnamed(numbers, maxMajor)) {
		for _, minor := range append(slices.Clip(numbers), unnamed(numbers, maxMinor)) {
			found, err := firstExcess(insns, targets, major, minor, permitted)
			if err != nil {
				return nil, err
			}
			if found != nil {
				excess = append(excess, *found)
			}
		}
	}
	return excess, nil
}

func firstExcess(insns asm.Instructions, targets []int, major, minor uint32, permitted func(Access) bool) (*Access, error) {
	for _, kind := range []uint16{unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_DEV_BLOCK} {
		for mode := uint16(1); mode <= unix.BPF_DEVCG_ACC_MKNOD|unix.BPF_DEVCG_ACC_READ|unix.BPF_DEVCG_ACC_WRITE; mode++ {
			a := Access{Type: kind, Mode: mode, Major: major, Minor: minor}
			if permitted(a) {
				continue
			}
			allowed, err := decide(insns, targets, a)
			if err != nil {
				return nil, err
			}
			if allowed {
				return &a, nil
			}
		}
	}
	return nil, nil
}

// distinct gives every number that the program compares with.
func distinct(insns asm.Instructions) []uint32 {
	var numbers []uint32
	for _, ins := range insns {
		op := ins.OpCode.JumpOp()
		if (op == asm.JEq || op == asm.JNE) && ins.OpCode.Source() == asm.ImmSource {
			numbers = append(numbers, uint32(ins.Constant))
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers)
}

// unnamed is a number above the largest of the kernel's that is none of numbers.
func unnamed(numbers []uint32, largest uint32) uint32 {
	other := largest + 1
	for slices.Contains(numbers, other) {
		other++
	}
	return other
}
