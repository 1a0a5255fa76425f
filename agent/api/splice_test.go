package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// deaf is a command's side that takes no input any more and has a last word to say.
type deaf struct {
	say    chan string
	closed chan struct{}
}

func (d deaf) Write([]byte) (int, error) { return 0, errors.New("it listens no more") }

func (d deaf) Read(p []byte) (int, error) {
	select {
	case word, open := <-d.say:
		if open {
			return copy(p, word), nil
		}
	case <-d.closed:
	}
	return 0, io.EOF
}

func (d deaf) Close() error {
	select {
	case <-d.closed:
	default:
		close(d.closed)
	}
	return nil
}

// A command that ends before it has read its input still tells how it ended.
func TestTheLastWordOfADeafCommandArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caller, conn := net.Pipe()
		command := deaf{say: make(chan string), closed: make(chan struct{})}
		done := make(chan struct{})
		go func() {
			splice(t.Context(), conn, bufio.NewReader(conn), command)
			close(done)
		}()
		if _, err := caller.Write([]byte("input")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the write to the command has failed
		go func() {
			defer close(command.say)
			select {
			case command.say <- "exit 0":
			case <-command.closed:
			}
		}()
		if got, err := io.ReadAll(caller); string(got) != "exit 0" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		<-done
	})
}

// A caller that goes, and an agent that stops, end the splice at once.
func TestSpliceEndsWithItsCaller(t *testing.T) {
	for name, end := range map[string]func(caller net.Conn, stop context.CancelFunc){
		"caller gone": func(caller net.Conn, _ context.CancelFunc) { caller.Close() },
		"agent stops": func(_ net.Conn, stop context.CancelFunc) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				caller, conn := net.Pipe()
				defer caller.Close()
				command := deaf{say: make(chan string), closed: make(chan struct{})}
				done := make(chan struct{})
				go func() {
					splice(ctx, conn, bufio.NewReader(conn), command)
					close(done)
				}()
				end(caller, stop)
				<-done
				<-command.closed
			})
		})
	}
}
