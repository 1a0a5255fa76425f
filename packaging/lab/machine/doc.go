// Package machine is the lab's guest: a Debian in qemu, under emulation, that
// boots, runs scripts, is rebooted, and loses its power.
//
// Every boot is one qemu process on the same disk: a reboot ends it, a power cut
// kills it. What the guest had not flushed by then is lost, as on a real machine.
//
//	m, err := machine.New(machine.Spec{Image: "build/lab/image", Payload: "payload.img", Dir: "build/lab/run"})
//	err = m.Boot(ctx)
//	exit, err := m.Run(ctx, "systemctl is-system-running", time.Minute, os.Stdout)
//
// It leaves journal.log (the guest's journal, as it was written) and serial.log
// (kernel and console) in its folder. Neighbours: packaging/lab/scenario, which
// says what is to be run, and packaging/lab/guest, which builds the image.
package machine
