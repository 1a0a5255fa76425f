package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/drivers/kmsg"
)

// TestXIDsAreToldOnce: an agent that starts again goes on behind the last one.
func TestXIDsAreToldOnce(t *testing.T) {
	mark := xidMark(filepath.Join(t.TempDir(), "xids"))
	if next := mark.next(); next != 0 {
		t.Errorf("nothing was told, and the next is %d", next)
	}
	if err := mark.set(kmsg.XID{Sequence: 41}); err != nil {
		t.Fatal(err)
	}
	if next := mark.next(); next != 42 {
		t.Errorf("41 was told, and the next is %d", next)
	}
	if err := os.WriteFile(string(mark), []byte("4x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if next := mark.next(); next != 0 {
		t.Errorf("the file is damaged, and the next is %d", next)
	}
}

func TestXIDsHaveTheTimeTheyWereLogged(t *testing.T) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	age := now.Sub(loggedAt(kmsg.XID{Uptime: time.Duration(up.Nano()) - time.Hour}, now))
	if age < time.Hour || age > 2*time.Hour {
		t.Errorf("an XID of an hour ago is %v old", age)
	}
}
