// Package wire is what the lab and the driver in its guest say to each other over
// a virtio serial port: one JSON object a line.
//
// The driver greets once after each boot. Then the lab asks for one script at a
// time; the driver answers with what it prints, and last with how it ended.
package wire

import (
	"encoding/json"
	"io"
	"time"
)

// Port is the name of the serial port, and of its file in the guest.
const (
	Port     = "lab"
	PortFile = "/dev/virtio-ports/" + Port
)

// Request asks the driver to run a script.
type Request struct {
	ID      int           `json:"id"`
	Script  string        `json:"script"`
	Timeout time.Duration `json:"timeout"` // after it the script is killed
}

// Event is one thing the driver says: hello, output or exit.
type Event struct {
	ID    int    `json:"id,omitempty"` // of the request
	Hello *Hello `json:"hello,omitempty"`
	Out   []byte `json:"out,omitempty"` // stdout and stderr, as they came
	Exit  *Exit  `json:"exit,omitempty"`
}

// Hello says that the guest is up.
type Hello struct {
	Kernel string        `json:"kernel"`
	Uptime time.Duration `json:"uptime"` // since the kernel began
}

// Exit is how a script ended.
type Exit struct {
	Code   int    `json:"code"`             // -1: it did not end by itself
	Reason string `json:"reason,omitempty"` // why not
}

// Encoder writes one object a line.
func Encoder(w io.Writer) *json.Encoder { return json.NewEncoder(w) }

// Decoder reads what [Encoder] wrote.
func Decoder(r io.Reader) *json.Decoder { return json.NewDecoder(r) }
