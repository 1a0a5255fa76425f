package tasklog

import (
	"bytes"
	"time"

	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

// splitter turns one stream's bytes into records, a record a line. A line
// longer than logfile.MaxText comes in parts; what has no newline yet is kept.
type splitter struct {
	stream logfile.Stream
	kept   []byte
}

// feed appends records of data to dst until dst has no room for another whole
// record, and returns what of data is left for the next call.
func (s *splitter) feed(dst []byte, now time.Time, data []byte) (out []byte, lines int, rest []byte) {
	for len(data) > 0 && cap(dst)-len(dst) >= logfile.MaxRecord {
		room := logfile.MaxText - len(s.kept)
		i := bytes.IndexByte(data[:min(len(data), room+1)], '\n')
		switch {
		case i >= 0:
			dst = s.record(dst, now, data[:i], false)
			data = data[i+1:]
		case len(data) > room:
			dst = s.record(dst, now, data[:room], true)
			data = data[room:]
		default:
			s.keep(data)
			return dst, lines, nil
		}
		lines++
	}
	return dst, lines, data
}

// end appends what was kept as a last line; dst has room for a record.
func (s *splitter) end(dst []byte, now time.Time) (out []byte, lines int) {
	if len(s.kept) == 0 {
		return dst, 0
	}
	return s.record(dst, now, nil, false), 1
}

func (s *splitter) record(dst []byte, now time.Time, text []byte, partial bool) []byte {
	if len(s.kept) > 0 {
		s.keep(text)
		text = s.kept
	}
	dst = logfile.Entry{Time: now, Stream: s.stream, Partial: partial, Text: text}.Append(dst)
	s.kept = s.kept[:0]
	return dst
}

// keep holds text; its buffer is made once, and only for a stream that needs it.
func (s *splitter) keep(text []byte) {
	if s.kept == nil {
		s.kept = make([]byte, 0, logfile.MaxText)
	}
	s.kept = append(s.kept, text...)
}
