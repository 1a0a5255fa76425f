	 0: LdXMemW dst: r2 src: r1 off: 0 imm: 0
	 1: LdXMemW dst: r4 src: r1 off: 4 imm: 0
	 2: LdXMemW dst: r5 src: r1 off: 8 imm: 0
	 3: MovReg32 dst: r3 src: r2
	 4: AndImm32 dst: r2 imm: 65535
	 5: RShImm32 dst: r3 imm: 16
	 6: JNEImm dst: r2 off: 32 imm: 2 <deny>
	 7: AndImm32 dst: r3 imm: 1
	 8: JNEImm dst: r3 off: 30 imm: 0 <deny>
rule-0:
	 9: JNEImm dst: r4 off: 1 imm: 1 <rule-1>
	10: JEqImm dst: r5 off: 26 imm: 3 <allow>
rule-1:
	11: JNEImm dst: r4 off: 1 imm: 1 <rule-2>
	12: JEqImm dst: r5 off: 24 imm: 5 <allow>
rule-2:
	13: JNEImm dst: r4 off: 1 imm: 1 <rule-3>
	14: JEqImm dst: r5 off: 22 imm: 7 <allow>
rule-3:
	15: JNEImm dst: r4 off: 1 imm: 1 <rule-4>
	16: JEqImm dst: r5 off: 20 imm: 8 <allow>
rule-4:
	17: JNEImm dst: r4 off: 1 imm: 1 <rule-5>
	18: JEqImm dst: r5 off: 18 imm: 9 <allow>
rule-5:
	19: JNEImm dst: r4 off: 1 imm: 5 <rule-6>
	20: JEqImm dst: r5 off: 16 imm: 0 <allow>
rule-6:
	21: JNEImm dst: r4 off: 1 imm: 5 <rule-7>
	22: JEqImm dst: r5 off: 14 imm: 1 <allow>
rule-7:
	23: JNEImm dst: r4 off: 1 imm: 5 <rule-8>
	24: JEqImm dst: r5 off: 12 imm: 2 <allow>
rule-8:
	25: JNEImm dst: r4 off: 1 imm: 136 <rule-9>
	26: Ja off: 10 <allow>
rule-9:
	27: JNEImm dst: r4 off: 1 imm: 195 <rule-10>
	28: JEqImm dst: r5 off: 8 imm: 0 <allow>
rule-10:
	29: JNEImm dst: r4 off: 1 imm: 195 <rule-11>
	30: JEqImm dst: r5 off: 6 imm: 3 <allow>
rule-11:
	31: JNEImm dst: r4 off: 1 imm: 195 <rule-12>
	32: JEqImm dst: r5 off: 4 imm: 255 <allow>
rule-12:
	33: JNEImm dst: r4 off: 1 imm: 510 <rule-13>
	34: JEqImm dst: r5 off: 2 imm: 0 <allow>
rule-13:
	35: MovImm32 dst: r0 imm: 0
	36: Exit
allow:
	37: MovImm32 dst: r0 imm: 1
	38: Exit
deny:
	39: MovImm32 dst: r0 imm: 0
	40: Exit
