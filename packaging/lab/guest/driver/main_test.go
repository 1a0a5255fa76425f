package main

import (
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// said collects a script's words.
type said struct{ strings.Builder }

func (s *said) send(e any) error {
	s.Write(e.(wire.Event).Out)
	return nil
}

func TestRun(t *testing.T) {
	for _, row := range []struct {
		name, script string
		timeout      time.Duration
		code         int
		reason, out  string
	}{
		{"passes", "echo one; echo two >&2", time.Minute, 0, "", "one\ntwo\n"},
		{"fails", "exit 3", time.Minute, 3, "", ""},
		{"takes too long", "sleep 1000", time.Millisecond, -1, "not done after 1ms", ""},
		{"leaves something behind", "sleep 2 & echo $!", time.Minute, -1, "give it output of its own", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var words said
			exit := run(t.TempDir(), wire.Request{Script: row.script, Timeout: row.timeout}, &output{send: words.send})
			if exit.Code != row.code || !strings.Contains(exit.Reason, row.reason) {
				t.Errorf("%+v, want code %d and reason %q", exit, row.code, row.reason)
			}
			if row.out != "" && words.String() != row.out {
				t.Errorf("said %q, want %q", words.String(), row.out)
			}
		})
	}
}
