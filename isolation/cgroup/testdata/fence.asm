	0: MovImm32 dst: r0 imm: 0
	1: Exit
