package logfile

import (
	"bytes"
	"time"
)

// Stream says where a record comes from.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
	Note   Stream = "note" // the log writer itself
)

const (
	// MaxText is the most text of one record; longer lines come in parts.
	MaxText = 16 << 10
	// MaxRecord is the most bytes of one record on disk, its newline included.
	MaxRecord = MaxText + 64

	stampSize = len("2006-01-02T15:04:05.999999999Z")
)

// Entry is one record. Text has no newline; Partial says that the line goes on
// in the next entry of the same stream. Text of an entry that a [Reader]
// returned is valid until its next call.
type Entry struct {
	Time    time.Time
	Stream  Stream
	Partial bool
	Text    []byte
}

// Append appends the entry's record to dst.
func (e Entry) Append(dst []byte) []byte {
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, ' ')
	dst = append(dst, e.Stream...)
	if e.Partial {
		dst = append(dst, " P "...)
	} else {
		dst = append(dst, " F "...)
	}
	dst = append(dst, e.Text...)
	return append(dst, '\n')
}

// Parse reads one record without its newline. It is strict: half a record, as a
// power cut leaves one, is no entry.
func Parse(record []byte) (Entry, bool) {
	stamp, rest, ok := bytes.Cut(record, []byte{' '})
	if !ok || len(stamp) > stampSize {
		return Entry{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Entry{}, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(rest) < 2 || rest[1] != ' ' || (rest[0] != 'F' && rest[0] != 'P') {
		return Entry{}, false
	}
	e := Entry{Time: at, Partial: rest[0] == 'P', Text: rest[2:]}
	switch string(stream) {
	case string(Stdout):
		e.Stream = Stdout
	case string(Stderr):
		e.Stream = Stderr
	case string(Note):
		e.Stream = Note
	default:
		return Entry{}, false
	}
	return e, true
}
