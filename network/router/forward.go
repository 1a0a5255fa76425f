package router

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/link"
)

// opened reads the note, one device a line.
func (k *Kernel) opened() ([]string, error) {
	text, err := os.ReadFile(k.config.Opened)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(text)), err
}

func (k *Kernel) noteOpened(devices []string) error {
	if len(devices) == 0 {
		if err := os.Remove(k.config.Opened); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget opened devices: %w", err)
		}
		return nil
	}
	if err := renameio.WriteFile(k.config.Opened, []byte(strings.Join(devices, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("note opened devices: %w", err)
	}
	return nil
}

// Forward implements network.Host.
func (k *Kernel) Forward(_ context.Context, forward network.ForwardArgs) error {
	for _, device := range forward.Open {
		if err := link.Set(forwarding(device, "1")); err != nil {
			return err
		}
	}
	for _, device := range forward.Close {
		if err := link.Set(forwarding(device, "0")); err != nil {
			return err
		}
	}
	return nil
}

func forwards(device string) (bool, error) {
	value, err := link.Get(forwarding(device, ""))
	return value == "1", err
}

func forwarding(device, value string) link.Sysctl {
	return link.Device("ipv4", device, "forwarding", value)
}
