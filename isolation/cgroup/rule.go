package cgroup

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation"
)

// Limits of the kernel's device numbers; larger ones cannot exist.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// Rule lets reading and writing of one character device through, or of all
// minors of one major. No rule can allow a block device or mknod: a program made
// of rules refuses both.
type Rule struct {
	Major    uint32
	Minor    uint32 // meaningless when AnyMinor
	AnyMinor bool
}

// Rules is the whole grant of an instance: the devices every container needs
// and the nodes given to it.
func Rules(nodes []isolation.Node) []Rule {
	rules := standard()
	for _, n := range nodes {
		rules = append(rules, Rule{Major: n.Major, Minor: n.Minor})
	}
	return rules
}

// standard are the devices of the OCI specification's default list, as the
// kernel's devices.txt numbers them. /dev/console is there because runc opens
// it; inside the container it is a pty.
func standard() []Rule {
	return []Rule{
		{Major: 1, Minor: 3},         // null
		{Major: 1, Minor: 5},         // zero
		{Major: 1, Minor: 7},         // full
		{Major: 1, Minor: 8},         // random
		{Major: 1, Minor: 9},         // urandom
		{Major: 5, Minor: 0},         // tty
		{Major: 5, Minor: 1},         // console
		{Major: 5, Minor: 2},         // ptmx
		{Major: 136, AnyMinor: true}, // pts
	}
}

// Allows says whether some rule lets access through: the meaning that a program
// assembled of these rules must have.
func Allows(rules []Rule, a Access) bool {
	if a.Type != unix.BPF_DEVCG_DEV_CHAR || a.Mode&unix.BPF_DEVCG_ACC_MKNOD != 0 {
		return false
	}
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return r.Major == a.Major && (r.AnyMinor || r.Minor == a.Minor)
	})
}

// normal sorts rules and drops repeated ones: the same grant always gives the
// same program, and so the same tag.
func normal(rules []Rule) ([]Rule, error) {
	out := slices.Clone(rules)
	for i, r := range out {
		if r.AnyMinor {
			out[i].Minor = 0
		}
		if r.Major > maxMajor || r.Minor > maxMinor {
			return nil, fmt.Errorf("assemble device program: device %d:%d does not exist", r.Major, r.Minor)
		}
	}
	slices.SortFunc(out, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor), boolOrder(a.AnyMinor, b.AnyMinor))
	})
	return slices.Compact(out), nil
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// Assemble makes the device program of a grant. No rule at all makes the
// fence, which refuses everything.
//
// The kernel hands the program a struct bpf_cgroup_dev_ctx in R1: the type in
// the lower and the access in the upper half of the first word, then major and
// minor.
func Assemble(rules []Rule) (asm.Instructions, error) {
	rules, err := normal(rules)
	if err != nil {
		return nil, err
	}
	if len(rules) == 0 {
		return verdict("", 0), nil
	}
	insns := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R4, asm.R1, 4, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, 8, asm.Word),
		asm.Mov.Reg32(asm.R3, asm.R2),
		asm.And.Imm32(asm.R2, 0xFFFF),
		asm.RSh.Imm32(asm.R3, 16),
		asm.JNE.Imm(asm.R2, unix.BPF_DEVCG_DEV_CHAR, "deny"),
		asm.And.Imm32(asm.R3, unix.BPF_DEVCG_ACC_MKNOD),
		asm.JNE.Imm(asm.R3, 0, "deny"),
	}
	for i, r := range rules {
		insns = append(insns, match(r, i)...)
	}
	insns = append(insns, verdict(label(len(rules)), 0)...)
	insns = append(insns, verdict("allow", 1)...)
	insns = append(insns, verdict("deny", 0)...)
	// Encoding once turns labels into offsets, which the tag is made from.
	if err := insns.Marshal(io.Discard, byteOrder()); err != nil {
		return nil, fmt.Errorf("assemble device program: %w", err)
	}
	return insns, nil
}

// match jumps to allow when rule i fits, else falls through to the next label.
func match(r Rule, i int) asm.Instructions {
	first := asm.JNE.Imm(asm.R4, int32(r.Major), label(i+1)).WithSymbol(label(i))
	if r.AnyMinor {
		return asm.Instructions{first, asm.Ja.Label("allow")}
	}
	return asm.Instructions{first, asm.JEq.Imm(asm.R5, int32(r.Minor), "allow")}
}

func label(i int) string { return fmt.Sprintf("rule-%d", i) }

func verdict(symbol string, value int32) asm.Instructions {
	insns := asm.Instructions{asm.Mov.Imm32(asm.R0, value), asm.Return()}
	if symbol != "" {
		insns[0] = insns[0].WithSymbol(symbol)
	}
	return insns
}
