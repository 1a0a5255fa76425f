// Command mkimage writes the busybox image that the demonstration and the
// benchmarks run.
//
//	mkimage -o busybox.tar [-cmd "httpd -f -p 8080"]
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

func main() {
	out := flag.String("o", "busybox.tar", "file to write")
	binary := flag.String("busybox", "/bin/busybox", "static busybox to wrap")
	cmd := flag.String("cmd", "sh", "the image's default command, split at spaces")
	flag.Parse()
	if err := write(*out, *binary, strings.Fields(*cmd)); err != nil {
		fmt.Fprintln(os.Stderr, "error: make image:", err)
		os.Exit(1)
	}
}

func write(out, binary string, cmd []string) error {
	spec, err := ociimage.Busybox(binary)
	if err != nil {
		return err
	}
	spec.Config.Cmd = cmd
	archive, err := spec.Archive()
	if err != nil {
		return err
	}
	return os.WriteFile(out, archive, 0o644)
}
