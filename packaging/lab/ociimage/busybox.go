package ociimage

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Busybox is an image around a static busybox (Debian's package
// busybox-static installs /bin/busybox): every applet as a link, the users root
// and nobody (65534), an empty /tmp. Without Cmd it runs a shell.
func Busybox(binary string) (Spec, error) {
	body, err := os.ReadFile(binary)
	if err != nil {
		return Spec{}, fmt.Errorf("read busybox: %w", err)
	}
	applets, err := applets(binary)
	if err != nil {
		return Spec{}, err
	}
	root := Layer{
		Dir("bin", 0o755), Dir("dev", 0o755), Dir("etc", 0o755), Dir("home", 0o755),
		Dir("proc", 0o755), Dir("root", 0o700), Dir("run", 0o755), Dir("sys", 0o755),
		Dir("tmp", 0o1777), Dir("usr", 0o755), Dir("usr/local", 0o755), Dir("var", 0o755),
		Symlink("sbin", "bin"), Symlink("usr/bin", "../bin"), Symlink("usr/sbin", "../bin"),
		File("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		File("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
		File("bin/busybox", 0o755, string(body)),
	}
	for _, name := range applets {
		root = append(root, Symlink("bin/"+name, "busybox"))
	}
	spec := Spec{Ref: "gpuhost.test/busybox:1", Layers: []Layer{root}}
	spec.Config.Env = []string{"PATH=/bin"}
	spec.Config.Cmd = []string{"sh"}
	return spec, nil
}

func applets(binary string) ([]string, error) {
	out, err := exec.Command(binary, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets of %s: %w", binary, err)
	}
	names := strings.Fields(string(out))
	names = slices.DeleteFunc(names, func(n string) bool { return n == "busybox" })
	slices.Sort(names)
	return slices.Compact(names), nil
}
