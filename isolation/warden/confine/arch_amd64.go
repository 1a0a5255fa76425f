package confine

import "golang.org/x/sys/unix"

// The x32 numbers, from 0x40000000 on, are on no list and so refused.
const (
	auditArch = unix.AUDIT_ARCH_X86_64
	fstatat   = unix.SYS_NEWFSTATAT
)
