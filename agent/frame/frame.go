package frame

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// Type says what a frame carries.
type Type byte

// The types. Their numbers are on the wire and never change; 0 is none, so that
// a stream of zeros is no frame.
const (
	Stdin      Type = 1 // bytes for the command
	Stdout     Type = 2 // bytes of the command; all of them when it has a terminal
	Stderr     Type = 3 // bytes of the command
	Resized    Type = 4 // a [Resize]
	Exited     Type = 5 // an [Exit]; the last frame
	Failed     Type = 6 // an [Error]; the last frame
	CloseStdin Type = 7 // no payload: the command sees end of file
)

// String gives the type's name in the protocol.
func (t Type) String() string {
	switch t {
	case Stdin:
		return "stdin"
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	case Resized:
		return "resize"
	case Exited:
		return "exit"
	case Failed:
		return "error"
	case CloseStdin:
		return "close-stdin"
	}
	return "type " + strconv.Itoa(int(t))
}

const (
	headerSize = 5
	// MaxPayload is the most bytes one frame carries.
	MaxPayload = 64 << 10
)

// What a stream or a payload may have wrong with it.
var (
	ErrType    = errors.New("frame of unknown type")
	ErrTooLong = errors.New("frame longer than 64 KiB")
	ErrPayload = errors.New("frame payload malformed")
)

// Frame is one frame. Payload of a frame that a [Reader] returned is valid until
// its next call.
type Frame struct {
	Type    Type
	Payload []byte
}

// Resize is the size of the caller's terminal, in character cells.
type Resize struct {
	Cols, Rows uint16
}

// Exit is how the command ended. Code means nothing when Unknown is set: the
// status was lost with a restart of containerd.
type Exit struct {
	Code    int32
	Unknown bool
}

// Error is why the command could not be run, in the parts of a fault. Code is
// the fault's kind.
type Error struct {
	Code, What, Why, Hint string
}

// Error renders "what: why".
func (e Error) Error() string {
	switch {
	case e.Why == "":
		return e.What
	case e.What == "":
		return e.Why
	}
	return e.What + ": " + e.Why
}

// Resize decodes the payload of a [Resized] frame.
func (f Frame) Resize() (Resize, error) {
	if f.Type != Resized || len(f.Payload) != 4 {
		return Resize{}, ErrPayload
	}
	return Resize{
		Cols: binary.BigEndian.Uint16(f.Payload),
		Rows: binary.BigEndian.Uint16(f.Payload[2:]),
	}, nil
}

// Exit decodes the payload of an [Exited] frame.
func (f Frame) Exit() (Exit, error) {
	if f.Type != Exited || len(f.Payload) != 5 || f.Payload[4] > 1 {
		return Exit{}, ErrPayload
	}
	return Exit{
		Code:    int32(binary.BigEndian.Uint32(f.Payload)),
		Unknown: f.Payload[4] == 1,
	}, nil
}

// Failure decodes the payload of a [Failed] frame.
func (f Frame) Failure() (Error, error) {
	if f.Type != Failed {
		return Error{}, ErrPayload
	}
	var e Error
	rest := f.Payload
	for _, field := range []*string{&e.Code, &e.What, &e.Why, &e.Hint} {
		text, tail, ok := cutString(rest)
		if !ok {
			return Error{}, ErrPayload
		}
		*field, rest = text, tail
	}
	if len(rest) != 0 {
		return Error{}, ErrPayload
	}
	return e, nil
}

func (r Resize) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, r.Cols)
	return binary.BigEndian.AppendUint16(dst, r.Rows)
}

func (e Exit) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.Code))
	if e.Unknown {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// maxText bounds each part of an [Error] so that four of them fit one frame.
const maxText = 8 << 10

func (e Error) append(dst []byte) []byte {
	for _, text := range []string{e.Code, e.What, e.Why, e.Hint} {
		if len(text) > maxText {
			text = text[:maxText]
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(text)))
		dst = append(dst, text...)
	}
	return dst
}

func cutString(b []byte) (text string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return "", nil, false
	}
	return string(b[2 : 2+n]), b[2+n:], true
}
