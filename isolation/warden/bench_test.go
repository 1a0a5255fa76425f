package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
)

// pssLimitMiB is what fifty log writers may cost together (P7: all wardens,
// the helper and the agent have 96).
const pssLimitMiB = 45

// TestFiftyLogWritersAreSmall is the promise; its figure is logged.
func TestFiftyLogWritersAreSmall(t *testing.T) {
	h := newHost(t)
	var total int
	for i := range 50 {
		uid := spec.UID(fmt.Sprintf("warden%02d", i))
		h.makePipes(t, uid)
		h.startLog(t, uid)
		// After work, not fresh: some lines through every one of them.
		log := h.follow(t, uid)
		fmt.Fprintln(h.writer(t, uid, fifo.Stdout), strings.Repeat("x", 8000))
		want(t, log, "stdout F "+strings.Repeat("x", 8000))
	}
	for i := range 50 {
		total += pssKiB(t, h.holder(t, spec.UID(fmt.Sprintf("warden%02d", i))))
	}
	t.Logf("PSS of 50 log writers: %.1f MiB", float64(total)/1024)
	if total > pssLimitMiB<<10 {
		t.Errorf("50 log writers take %d MiB, promised %d", total>>10, pssLimitMiB)
	}
}

func pssKiB(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); f[0] == "Pss:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no Pss of %d", pid)
	return 0
}
