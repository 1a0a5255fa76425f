// Package frame is the framing of exec: what the command line, the API and the
// exec relay say to each other over one byte stream.
//
// A frame is one type byte, a big-endian uint32 length and that many bytes of
// payload, at most [MaxPayload]. The caller's side sends stdin, close-stdin and
// resize; the command's side sends stdout, stderr, then one exit or one error.
//
//	w := frame.NewWriter(conn)
//	err := w.Data(frame.Stdout, text)
//	f, err := frame.NewReader(conn).Next()
//
// The package is pure and imports next to nothing, because every relay process
// carries it. Neighbours: isolation/warden/relay, agent/api, agent/client.
package frame
