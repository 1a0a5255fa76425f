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
	var reg [11]uint64
	for pc := 0; pc < len(insns); {
		ins := insns[pc]
		next := pc + 1
		switch class := ins.OpCode.Class(); {
		case class == asm.LdXClass:
			word, err := contextWord(ins, a)
			if err != nil {
				return false, err
			}
			reg[ins.Dst] = uint64(word)
		case class.IsALU():
			if err := calculate(&reg, ins); err != nil {
				return false, err
			}
		case ins.OpCode.JumpOp() == asm.Exit:
			return reg[asm.R0] != 0, nil
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

// contextWord loads from struct bpf_cgroup_dev_ctx, addressed by R1.
func contextWord(ins asm.Instruction, a Access) (uint32, error) {
	if ins.OpCode.Mode() == asm.MemMode && ins.OpCode.Size() == asm.Word && ins.Src == asm.R1 {
		switch ins.Offset {
		case 0:
			return uint32(a.Mode)<<16 | uint32(a.Type), nil
		case 4:
			return a.Major, nil
		case 8:
			return a.Minor, nil
		}
	}
	return 0, fmt.Errorf("interpret %v: %w", ins, errForeign)
}

// operand is the second value of a calculation or comparison; immediates are
// sign-extended, as in the kernel.
func operand(reg *[11]uint64, ins asm.Instruction) uint64 {
	if ins.OpCode.Source() == asm.RegSource {
		return reg[ins.Src]
	}
	return uint64(ins.Constant)
}

func calculate(reg *[11]uint64, ins asm.Instruction) error {
	value := operand(reg, ins)
	switch ins.OpCode.ALUOp() {
	case asm.Mov:
	case asm.And:
		value &= reg[ins.Dst]
	case asm.RSh:
		value = reg[ins.Dst] >> (value & 63)
	default:
		return fmt.Errorf("interpret %v: %w", ins, errForeign)
	}
	if ins.OpCode.Class() == asm.ALUClass {
		value = uint64(uint32(value))
	}
	reg[ins.Dst] = value
	return nil
}

func jumps(reg *[11]uint64, ins asm.Instruction) (bool, error) {
	left, right := reg[ins.Dst], operand(reg, ins)
	if ins.OpCode.Class() == asm.Jump32Class {
		left, right = uint64(uint32(left)), uint64(uint32(right))
	}
	switch ins.OpCode.JumpOp() {
	case asm.Ja:
		return true, nil
	case asm.JEq:
		return left == right, nil
	case asm.JNE:
		return left != right, nil
	default:
		return false, fmt.Errorf("interpret %v: %w", ins, errForeign)
	}
}

// Excess lists what a program lets through beyond the permitted: one example
// for each device. It is exhaustive: a filter compares numbers with constants
// only, so it treats every number it does not name alike, and one such number
// stands for all.
func Excess(insns asm.Instructions, permitted func(Access) bool) ([]Access, error) {
	targets, err := jumpTargets(insns)
	if err != nil {
		return nil, err
	}
	var excess []Access
	numbers := distinct(insns)
	for _, major := range numbers {
		for _, minor := range numbers {
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

// distinct gives every number the program compares with, and one it does not.
func distinct(insns asm.Instructions) []uint32 {
	var numbers []uint32
	for _, ins := range insns {
		if ins.OpCode.Class().IsJump() && ins.OpCode.Source() == asm.ImmSource {
			numbers = append(numbers, uint32(ins.Constant))
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	other := uint32(0)
	for slices.Contains(numbers, other) {
		other++
	}
	return append(numbers, other)
}
