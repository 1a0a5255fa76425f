#include "textflag.h"

// func spawn(args *cloneArgs, size uintptr, script *call) uintptr
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ script+16(FP), R12
	MOVQ $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JEQ child
	MOVQ AX, ret+24(FP)
	RET

	// The child has its parent's stack and must not touch it: no call, no return.
child:
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	SYSCALL
	MOVQ AX, 40(R12)
	ADDQ $48, R12
	JMP child
