package cgroup

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// load is the beginning of every filter: the three words in R2, R4 and R5.
func load(rest ...asm.Instruction) asm.Instructions {
	return append(asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R4, asm.R1, 4, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, 8, asm.Word),
	}, rest...)
}

// signed has the kernel extend the sign of what it moves, as Linux 6.6 can.
func signed(ins asm.Instruction, bits int16) asm.Instruction {
	ins.Offset = bits
	return ins
}

// foreignPrograms do more than a device filter needs. What of a device number goes
// into a calculation decides more than the numbers a program names.
func foreignPrograms() map[string]asm.Instructions {
	deny := verdict("deny", 0)
	return map[string]asm.Instructions{
		"helper call":    {asm.FnGetCurrentPidTgid.Call(), asm.Return()},
		"backward jump":  {asm.Mov.Imm(asm.R0, 1).WithSymbol("top"), asm.Ja.Label("top")},
		"no end":         {asm.Mov.Imm(asm.R0, 1)},
		"stack access":   {asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord), asm.Return()},
		"wide immediate": {asm.LoadImm(asm.R0, 1<<40, asm.DWord), asm.Return()},
		"masked major":   append(load(asm.And.Imm32(asm.R4, 4), asm.JEq.Imm(asm.R4, 0, "deny"), asm.Mov.Imm(asm.R0, 1), asm.Return()), deny...),
		"shifted minor":  append(load(asm.RSh.Imm(asm.R5, 4), asm.JEq.Imm(asm.R5, 0, "deny"), asm.Mov.Imm(asm.R0, 1), asm.Return()), deny...),
		"masked copy":    append(load(asm.Mov.Reg(asm.R6, asm.R4), asm.And.Imm(asm.R6, 4), asm.JEq.Imm(asm.R6, 0, "deny"), asm.Mov.Imm(asm.R0, 1), asm.Return()), deny...),
		"number as mask": append(load(asm.Mov.Imm(asm.R6, 4), asm.And.Reg(asm.R6, asm.R4), asm.JEq.Imm(asm.R6, 0, "deny"), asm.Mov.Imm(asm.R0, 1), asm.Return()), deny...),
		"major is minor": append(load(asm.JEq.Reg(asm.R4, asm.R5, "deny"), asm.Mov.Imm(asm.R0, 1), asm.Return()), deny...),
		"larger major":   append(load(asm.JGT.Imm(asm.R4, 8, "deny"), asm.Mov.Imm(asm.R0, 1), asm.Return()), deny...),
		"verdict of it":  load(asm.Mov.Reg(asm.R0, asm.R4), asm.Return()),
		"signed move":    load(signed(asm.Mov.Reg(asm.R0, asm.R2), 8), asm.Return()),
		"context lost":   {asm.Mov.Reg(asm.R1, asm.RFP), asm.LoadMem(asm.R4, asm.R1, 4, asm.Word), asm.Mov.Imm(asm.R0, 1), asm.Return()},
	}
}

func TestForeignProgramsAreRefused(t *testing.T) {
	for name, insns := range foreignPrograms() {
		t.Run(name, func(t *testing.T) {
			if allowed, err := Decide(insns, Access{Type: 1, Mode: 2, Major: 9, Minor: 9}); err == nil {
				t.Errorf("Decide = %v without an error", allowed)
			}
			if excess, err := Excess(insns, func(Access) bool { return false }); err == nil {
				t.Errorf("Excess = %v without an error", excess)
			}
		})
	}
}

// Shifts of 32 bits take five bits of their count, those of 64 take six.
func TestShiftsTakeTheirWidth(t *testing.T) {
	for _, row := range []struct {
		name  string
		shift asm.Instruction
		want  bool
	}{
		{"32 bits by 32", asm.RSh.Imm32(asm.R2, 32), true},
		{"64 bits by 32", asm.RSh.Imm(asm.R2, 32), false},
		{"64 bits by 64", asm.RSh.Imm(asm.R2, 64), true},
	} {
		got, err := Decide(load(row.shift, asm.Mov.Reg(asm.R0, asm.R2), asm.Return()), Access{Type: 1, Mode: 1})
		if err != nil || got != row.want {
			t.Errorf("%s: %v, %v", row.name, got, err)
		}
	}
}

// A program that allows all lets through what no rule names, whatever the rules do.
func TestExcessOfAWideRule(t *testing.T) {
	all := asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
	excess, err := Excess(all, func(a Access) bool { return a.Major == 0 || a.Major == maxMajor })
	if err != nil || len(excess) != 1 {
		t.Errorf("Excess = %v, %v", excess, err)
	}
}

func FuzzDecide(f *testing.F) {
	seeds := foreignPrograms()
	seeds["grant"] = assemble(f, grant(0))
	for _, insns := range seeds {
		var code bytes.Buffer
		if err := insns.Marshal(&code, byteOrder()); err == nil {
			f.Add(code.Bytes(), uint16(1), uint16(2), uint32(195), uint32(0))
		}
	}
	f.Fuzz(func(t *testing.T, code []byte, kind, mode uint16, major, minor uint32) {
		insns, err := asm.AppendInstructions(nil, bytes.NewReader(code), byteOrder(), "linux")
		if err != nil {
			return
		}
		a := Access{Type: kind, Mode: mode, Major: major, Minor: minor}
		allowed, err := Decide(insns, a)
		if err != nil || !allowed || len(insns) > 64 || !possible(a) {
			return
		}
		// What is let through must be found by the look at all numbers.
		excess, err := Excess(insns, func(Access) bool { return false })
		if err == nil && len(excess) == 0 {
			t.Errorf("%v lets %v through, and Excess finds nothing", insns, a)
		}
	})
}

func possible(a Access) bool {
	return (a.Type == unix.BPF_DEVCG_DEV_CHAR || a.Type == unix.BPF_DEVCG_DEV_BLOCK) && a.Mode > 0 && a.Mode < 8
}
