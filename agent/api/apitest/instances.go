package apitest

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/frame"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Verb implements api.Instances.
func (b *Backend) Verb(ctx context.Context, who api.Caller, ref spec.Ref, verb api.Verb) (api.ChangeRef, error) {
	if _, err := b.Get(ctx, ref); err != nil {
		return api.ChangeRef{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.begin(who, ref, string(verb)), b.fail["Verb"]
}

// Logs implements api.Instances: the log of every instance, and when followed,
// nothing more until the context ends. "gone" is the name of a deleted one.
func (b *Backend) Logs(ctx context.Context, ref spec.Ref, o api.LogOptions) (api.Log, error) {
	if ref.Name == "gone" {
		return api.Log{ReadCloser: io.NopCloser(strings.NewReader(b.Log)), DeletedAt: Now()}, nil
	}
	if _, err := b.Get(ctx, ref); err != nil {
		return api.Log{}, err
	}
	text := b.Log
	if lines := strings.SplitAfter(text, "\n"); o.Tail > 0 && o.Tail < len(lines)-1 {
		text = strings.Join(lines[len(lines)-1-o.Tail:], "")
	}
	if !o.Follow {
		return api.Log{ReadCloser: io.NopCloser(strings.NewReader(text))}, nil
	}
	reader, writer := io.Pipe()
	go func() {
		_, _ = io.WriteString(writer, text)
		<-ctx.Done()
		writer.Close()
	}()
	return api.Log{ReadCloser: reader}, nil
}

// Exec implements api.Instances with four commands: "echo WORDS", "cat",
// "exit CODE" and "size", which prints the terminal's size and each new one
// until its input ends.
func (b *Backend) Exec(ctx context.Context, _ api.Caller, ref spec.Ref, request api.ExecRequest) (io.ReadWriteCloser, error) {
	if _, err := b.Get(ctx, ref); err != nil {
		return nil, err
	}
	b.mu.Lock()
	err := b.fail["Exec"]
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	go func() {
		defer ours.Close()
		serveCommand(request, frame.NewReader(ours), frame.NewWriter(ours))
	}()
	return theirs, nil
}

// serveCommand ignores errors of writing: the caller has gone.
func serveCommand(request api.ExecRequest, in *frame.Reader, out *frame.Writer) {
	switch request.Command[0] {
	case "echo":
		_ = out.Data(frame.Stdout, []byte(strings.Join(request.Command[1:], " ")+"\n"))
	case "exit":
		code, _ := strconv.Atoi(request.Command[1])
		_ = out.Data(frame.Stderr, []byte("leaving\n"))
		_ = out.Exit(frame.Exit{Code: int32(code)})
		return
	case "cat":
		copyFrames(in, out, frame.Stdin)
	case "size":
		_ = out.Data(frame.Stdout, fmt.Appendf(nil, "%dx%d\r\n", request.Cols, request.Rows))
		copyFrames(in, out, frame.Resized)
	case "vanish":
		return
	default:
		_ = out.Fail(frame.Error{Code: "not_found", What: "exec " + request.Command[0], Why: "no such file"})
		return
	}
	_ = out.Exit(frame.Exit{})
}

func copyFrames(in *frame.Reader, out *frame.Writer, what frame.Type) {
	for {
		f, err := in.Next()
		if err != nil || f.Type == frame.CloseStdin {
			return
		}
		if f.Type != what {
			continue
		}
		if what == frame.Resized {
			size, _ := f.Resize()
			_ = out.Data(frame.Stdout, fmt.Appendf(nil, "%dx%d\r\n", size.Cols, size.Rows))
			continue
		}
		_ = out.Data(frame.Stdout, f.Payload)
	}
}
