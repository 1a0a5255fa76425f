// Package notify tells the service manager how the agent is. Without one (a
// shell, a test) every call does nothing.
package notify

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the agent answers. Tenants are guarded before, by what an earlier
// one left in force.
func Ready() error { return send(daemon.SdNotifyReady) }

// Stopping says that the agent ends by itself.
func Stopping() error { return send(daemon.SdNotifyStopping) }

// Managed says whether there is a service manager that listens.
func Managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Status sets the one line that `systemctl status` shows. What follows a line break
// would be another message to the manager, so there is none.
func Status(line string) error { return send("STATUS=" + strings.ReplaceAll(line, "\n", " ")) }

func send(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Watch feeds the manager's watchdog, if it has set one, as long as alive says
// so: twice in its interval, until ctx is done. A loop that hangs stops being
// alive, and the manager restarts the agent.
func Watch(ctx context.Context, alive func() bool) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return err
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !alive() {
				continue
			}
			if err := send(daemon.SdNotifyWatchdog); err != nil {
				return err
			}
		}
	}
}
