package frame

import (
	"bufio"
	"encoding/binary"
	"io"
	"sync"
)

// Reader takes frames off a stream.
type Reader struct {
	src     *bufio.Reader
	payload []byte
}

// NewReader reads from r. It may read ahead: nothing else should read r.
func NewReader(r io.Reader) *Reader {
	return &Reader{src: bufio.NewReader(r)}
}

// Next returns the next frame; its payload is valid until the next call. At the
// end of the stream between two frames the error is io.EOF, within one
// io.ErrUnexpectedEOF. Nothing is allocated for a length that is refused.
func (r *Reader) Next() (Frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r.src, header[:]); err != nil {
		return Frame{}, err
	}
	t := Type(header[0])
	if t < Stdin || t > CloseStdin {
		return Frame{}, ErrType
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > MaxPayload {
		return Frame{}, ErrTooLong
	}
	if int(n) > cap(r.payload) {
		r.payload = make([]byte, n)
	}
	p := r.payload[:n]
	if _, err := io.ReadFull(r.src, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Type: t, Payload: p}, nil
}

// Writer puts frames on a stream, each with one Write. Several goroutines may
// share it. After an error it stays failed, because half a frame may be out.
type Writer struct {
	mu  sync.Mutex
	dst io.Writer
	buf []byte
	err error
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{dst: w} }

// Data sends bytes as frames of type t, as many as their length needs; none for
// no bytes.
func (w *Writer) Data(t Type, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), MaxPayload)
		if err := w.Frame(Frame{Type: t, Payload: p[:n]}); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Frame sends one frame as it is.
func (w *Writer) Frame(f Frame) error {
	if len(f.Payload) > MaxPayload {
		return ErrTooLong
	}
	return w.send(f.Type, func(b []byte) []byte { return append(b, f.Payload...) })
}

// CloseStdin tells the command that its input has ended.
func (w *Writer) CloseStdin() error { return w.Frame(Frame{Type: CloseStdin}) }

// Resize sends the caller's terminal size.
func (w *Writer) Resize(r Resize) error { return w.send(Resized, r.append) }

// Exit sends how the command ended; nothing follows it.
func (w *Writer) Exit(e Exit) error { return w.send(Exited, e.append) }

// Fail sends why there is no command; nothing follows it. Parts longer than
// 8 KiB are cut.
func (w *Writer) Fail(e Error) error { return w.send(Failed, e.append) }

func (w *Writer) send(t Type, payload func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.buf = payload(append(w.buf[:0], byte(t), 0, 0, 0, 0))
	binary.BigEndian.PutUint32(w.buf[1:], uint32(len(w.buf)-headerSize))
	_, w.err = w.dst.Write(w.buf)
	return w.err
}
