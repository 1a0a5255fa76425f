package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestWardenStaysSmall keeps out what fifty processes would each pay for in
// memory. The DNS library alone costs 230 KiB a process.
func TestWardenStaysSmall(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOPROXY=off")
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(output))
	for _, unwanted := range []string{"net", "net/http", "encoding/json", "crypto/tls", "log/slog", "github.com/miekg/dns"} {
		if slices.Contains(deps, unwanted) {
			t.Errorf("warden imports %s", unwanted)
		}
	}
}
