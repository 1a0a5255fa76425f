package machine

import (
	"path/filepath"
	"strings"

	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// kernelOptions are the guest's command line. Mitigations and a random layout
// cost much under emulation and say nothing about us.
var kernelOptions = []string{
	"root=/dev/vda", "rw", "console=ttyS0", "quiet", "loglevel=4", "systemd.show_status=0",
	"mitigations=off", "nokaslr", "random.trust_cpu=on", "panic=-1",
}

// arguments are qemu's. The disk is written as a real one is: what the guest
// flushed survives a kill, and nothing else need.
func (m *Machine) arguments() []string {
	return []string{
		"-name", "gpuhost-lab", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off", "-smp", "2", "-m", "2048",
		"-kernel", filepath.Join(m.spec.Image, "vmlinux"), "-initrd", filepath.Join(m.spec.Image, "initrd"),
		"-append", strings.Join(kernelOptions, " "),
		"-drive", "file=" + m.disk() + ",if=virtio,format=qcow2,cache=writeback,discard=unmap",
		"-drive", "file=" + m.spec.Payload + ",if=virtio,format=raw,readonly=on",
		"-device", "virtio-rng-pci",
		"-chardev", "socket,id=serial,path=" + filepath.Join(m.spec.Dir, "serial"), "-serial", "chardev:serial",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=journal,append=on,path=" + m.Journal(), "-device", "virtconsole,chardev=journal",
		"-chardev", "socket,id=port,path=" + filepath.Join(m.spec.Dir, "port"), "-device", "virtserialport,chardev=port,name=" + wire.Port,
		"-device", "isa-debug-exit,iobase=0xf4,iosize=0x01",
	}
}
