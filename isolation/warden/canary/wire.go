package canary

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
)

// A visit is written as lines, an empty one last:
//
//	cgroup /sys/fs/cgroup/gpuhost-1f/aaaaaaaa/canary
//	uid 1879048192
//	root 195 255 /run/gpuhost/nodes/.bait/nvidiactl
//	tenant 195 1 /run/gpuhost/nodes/bbbbbbbb/nvidia1
//
// and its answer as one: "tried 1 13", the errnos in the order of the tries, or
// "failed" and why there are none.
const (
	wordCgroup = "cgroup"
	wordUID    = "uid"
	wordRoot   = "root"
	wordTenant = "tenant"
	wordTried  = "tried"
	wordFailed = "failed"
)

// WriteVisit sends one visit. A path that would not arrive as it is is refused.
func WriteVisit(w io.Writer, v Visit) error {
	if strings.Contains(v.Cgroup, "\n") {
		return fmt.Errorf("send canary: odd cgroup %q", v.Cgroup)
	}
	text := fmt.Appendf(nil, "%s %s\n%s %d\n", wordCgroup, v.Cgroup, wordUID, v.UID)
	for _, part := range []struct {
		word  string
		nodes []Node
	}{{wordRoot, v.Root}, {wordTenant, v.Tenant}} {
		for _, n := range part.nodes {
			if strings.Contains(n.Path, "\n") {
				return fmt.Errorf("send canary: odd path %q", n.Path)
			}
			text = fmt.Appendf(text, "%s %d %d %s\n", part.word, n.Major, n.Minor, n.Path)
		}
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("send canary: %w", err)
	}
	return nil
}

// ReadVisit reads what WriteVisit wrote. io.EOF alone says that no further visit
// comes.
func ReadVisit(r *bufio.Reader) (Visit, error) {
	var v Visit
	for first := true; ; first = false {
		line, err := r.ReadString('\n')
		if err == io.EOF && first && line == "" {
			return Visit{}, io.EOF
		}
		if err != nil {
			return Visit{}, fmt.Errorf("read visit: %w", errors.Join(io.ErrUnexpectedEOF, err))
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			return v, nil
		}
		if err := v.add(line); err != nil {
			return Visit{}, fmt.Errorf("read visit: %w", err)
		}
	}
}

func (v *Visit) add(line string) (err error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case wordCgroup:
		v.Cgroup = rest
	case wordUID:
		v.UID, err = strconv.Atoi(rest)
	case wordRoot:
		v.Root, err = appendNode(v.Root, rest)
	case wordTenant:
		v.Tenant, err = appendNode(v.Tenant, rest)
	default:
		err = fmt.Errorf("unknown line %q", line)
	}
	return err
}

func appendNode(nodes []Node, text string) ([]Node, error) {
	major, rest, _ := strings.Cut(text, " ")
	minor, path, _ := strings.Cut(rest, " ")
	a, errA := strconv.ParseUint(major, 10, 32)
	i, errI := strconv.ParseUint(minor, 10, 32)
	return append(nodes, Node{Path: path, Major: uint32(a), Minor: uint32(i)}), errors.Join(errA, errI)
}

// WriteAnswer sends what a visit came to, or why it came to nothing.
func WriteAnswer(w io.Writer, tried []syscall.Errno, failed error) error {
	text := []byte(wordTried)
	for _, errno := range tried {
		text = strconv.AppendUint(append(text, ' '), uint64(errno), 10)
	}
	if failed != nil {
		text = fmt.Appendf(nil, "%s %s", wordFailed, strings.ReplaceAll(failed.Error(), "\n", "; "))
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// Failed is why a canary's visit came to nothing, in its own words.
type Failed string

// Error is the canary's text.
func (f Failed) Error() string { return string(f) }

// ReadAnswer reads what WriteAnswer wrote about these tries. Anything but one errno
// for each is an error: a canary that died has proved nothing. All errors but
// [Failed] say that it is not to be talked to any more.
func ReadAnswer(r *bufio.Reader, t Tries) (Answer, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return Answer{}, fmt.Errorf("read canary: %w", err)
	}
	word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if word == wordFailed {
		return Answer{}, Failed(rest)
	}
	fields := strings.Fields(rest)
	if word != wordTried || len(fields) != len(t.Root)+len(t.Tenant) {
		return Answer{}, fmt.Errorf("read canary: %d answers to %d tries", len(fields), len(t.Root)+len(t.Tenant))
	}
	root, err := results(t.Root, fields[:len(t.Root)])
	if err != nil {
		return Answer{}, err
	}
	tenant, err := results(t.Tenant, fields[len(t.Root):])
	return Answer{Root: root, Tenant: tenant}, err
}

func results(nodes []Node, errnos []string) ([]Result, error) {
	var out []Result
	for i, n := range nodes {
		errno, err := strconv.ParseUint(errnos[i], 10, 12) // the kernel's end at 4095
		if err != nil {
			return nil, fmt.Errorf("read canary: %w", err)
		}
		out = append(out, Result{Path: n.Path, Major: n.Major, Minor: n.Minor, Errno: syscall.Errno(errno)})
	}
	return out, nil
}
