// Command defaults writes the files that packages install and the program knows
// the content of: the settings with every default as a comment, and the
// configuration of containerd.
//
//	defaults -out build/packages/defaults
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gpuhost/gpuhost/agent"
	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/store"
)

func main() {
	out := flag.String("out", "build/packages/defaults", "folder to write to")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func write(out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make folder for defaults: %w", err)
	}
	for name, text := range map[string]string{"gpuhost.toml": config.DefaultText(), "containerd.toml": agent.ContainerdConfig(), "schema": strconv.Itoa(store.Schema())} {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write default: %w", err)
		}
	}
	return nil
}
