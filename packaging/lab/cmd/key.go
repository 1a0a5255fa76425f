package main

import (
	"bytes"
	"io"
)

// untilKey reads until somebody presses a key.
type untilKey struct {
	r   io.Reader
	key byte
}

func (u *untilKey) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if i := bytes.IndexByte(p[:n], u.key); i >= 0 {
		return i, io.EOF
	}
	return n, err
}
