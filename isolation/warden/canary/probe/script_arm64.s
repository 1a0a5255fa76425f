#include "textflag.h"

// func spawn(args *cloneArgs, size uintptr, script *call) uintptr
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD script+16(FP), R9
	MOVD $435, R8 // clone3
	SVC
	CBZ R0, child
	MOVD R0, ret+24(FP)
	RET

	// The child has its parent's stack and must not touch it: no call, no return.
child:
	MOVD 0(R9), R8
	MOVD 8(R9), R0
	MOVD 16(R9), R1
	MOVD 24(R9), R2
	MOVD 32(R9), R3
	SVC
	MOVD R0, 40(R9)
	ADD $48, R9
	JMP child
