package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// badInput is something a person may ask for by mistake or by malice.
type badInput struct {
	name     string
	document string   // applied, or
	args     []string // run
	code     int
	says     []string // parts of what is said
}

// TestBadInput: what is wrong is refused with what, why and a hint, and changes
// nothing.
func TestBadInput(t *testing.T) {
	h := newHost(t)
	h.mustStart()
	h.apply(h.twoTenants("7000"))
	h.settled()
	before := h.expect(0, "export").stdout
	refused := badDocuments()
	refused = append(refused, badRuns(h.image)...)
	for _, bad := range refused {
		t.Run(bad.name, func(t *testing.T) {
			h.of(t).refuses(bad)
			if now := h.expect(0, "export").stdout; now != before {
				t.Errorf("something changed:\n%s\nwas\n%s", now, before)
			}
		})
	}
	for _, bad := range badImages(t) {
		t.Run(bad.name, func(t *testing.T) {
			part := h.of(t)
			part.refuses(bad)
			part.isNotRunning("acme/bad")
			part.expect(0, "rm", "--yes", "acme/bad")
			part.settled()
		})
	}
	for _, token := range []bool{false, true} {
		t.Run(fmt.Sprintf("wrong credentials, by token: %t", token), func(t *testing.T) { wrongCredentials(t, h.of(t), token) })
	}
	t.Run("an image that wants more than it is given", func(t *testing.T) { greedyImage(t, h.of(t)) })
	t.Run("another manager's drop", func(t *testing.T) { foreignDrop(t, h.of(t)) })
	t.Run("another writer was first", func(t *testing.T) { staleWrite(t, h.of(t)) })
	t.Run("another agent", func(t *testing.T) { anotherAgent(t, h.of(t)) })
	t.Run("a state file of a newer version", func(t *testing.T) { newerState(t, h) })
	h.settled()
}

// refuses asks for what must be refused.
func (h *host) refuses(bad badInput) {
	h.t.Helper()
	args := bad.args
	if bad.document != "" {
		args = []string{"apply", "--yes", "-f", "-"}
	}
	out := h.gpuhostIn(strings.NewReader(bad.document), args...)
	if out.code != bad.code {
		h.t.Errorf("%s\nwant exit code %d", out, bad.code)
	}
	for _, part := range bad.says {
		if !strings.Contains(out.stderr, part) {
			h.t.Errorf("nothing of %q in\n%s", part, out.stderr)
		}
	}
}

func (h *host) isNotRunning(name string) {
	h.t.Helper()
	if o := h.instance(name); o.Status != nil && o.Status.Phase == spec.PhaseRunning {
		h.t.Errorf("%s runs", name)
	}
}

func badDocuments() []badInput {
	const head = "apiVersion: gpuhost/v1\nkind: "
	return []badInput{
		{name: "unknown field", code: 2, says: []string{"stdin:6:3", "imagee", `"image"`},
			document: head + "Instance\nmetadata: {tenant: acme, name: x}\nspec:\n  command: [a]\n  imagee: debian:12\n"},
		{name: "unknown kind", code: 2, says: []string{"stdin:2:7", "Instence", `"Instance"`}, document: head + "Instence\nmetadata: {name: x}\n"},
		{name: "a unit that is none", code: 2, says: []string{"12Gigs"},
			document: head + "Instance\nmetadata: {tenant: acme, name: x}\nspec: {image: a, resources: {memory: 12Gigs}}\n"},
		{name: "a negative number", code: 2, says: []string{"gpus.count"},
			document: head + "Instance\nmetadata: {tenant: acme, name: x}\nspec: {image: a, gpus: {count: -1}}\n"},
		{name: "a name with traversal", code: 2, says: []string{"../../etc"},
			document: head + "Instance\nmetadata: {tenant: acme, name: ../../etc}\nspec: {image: a}\n"},
		{name: "a name with control characters", code: 2, says: []string{"U+001B"},
			document: head + "Instance\nmetadata: {tenant: acme, name: \"a\\e[2J\"}\nspec: {image: a}\n"},
		{name: "two of one name", code: 2, says: []string{"twice"},
			document: strings.Repeat("---\n"+head+"Tenant\nmetadata: {name: x}\nspec: {}\n", 2)},
		{name: "overlapping subnets", code: 2, says: []string{"overlap", "10.0.1.128/25"},
			document: head + "Subnet\nmetadata: {tenant: acme, name: other}\nspec: {network: default, cidr: 10.0.1.128/25}\n"},
		{name: "an object over its limit", code: 2, says: []string{"1MiB"},
			document: head + "Instance\nmetadata: {tenant: acme, name: x}\nspec: {image: a, env: {A: " + strings.Repeat("a", 1<<20) + "}}\n"},
		{name: "a document over its limit", code: 2, says: []string{"4MiB"},
			document: strings.Repeat("# "+strings.Repeat("a", 1<<10)+"\n", 4<<10) + head + "Tenant\nmetadata: {name: x}\nspec: {}\n"},
		{name: "a huge number", code: 2, says: []string{"gpus.count"},
			document: head + "Instance\nmetadata: {tenant: acme, name: x}\nspec: {image: a, gpus: {count: 99999999999999999999}}\n"},
		{name: "a rule for a group that is absent", code: 2, says: []string{"nobody"},
			document: head + "SecurityGroup\nmetadata: {tenant: acme, name: x}\nspec: {ingress: [{action: accept, protocol: all, remote: \"sg:nobody\"}]}\n"},
	}
}

func badRuns(image string) []badInput {
	run := func(more ...string) []string {
		return append([]string{"run", "--tenant", "acme", "--name", "bad", "oci-archive:" + image}, more...)
	}
	return []badInput{
		{name: "too many GPUs", args: run("--gpus", "8", "--memory", "64MiB", "--cpus", "0.1", "--tenant", "globex"), code: 7, says: []string{"4 of this host's GPUs free", "2 held by acme/a", "gpuhost gpu list"}},
		{name: "more memory than is left", args: run("--memory", "1TiB"), code: 7, says: []string{"memory", "more are asked for", "held by acme/a"}},
		{name: "a model that is not here", args: run("--gpus", "1", "--memory", "64MiB", "--gpu-model", "B300"), code: 2, says: []string{"B300", "H100"}},
		{name: "a security group that is absent", args: run("--security-group", "nobody"), code: 2, says: []string{"nobody"}},
		{name: "a subnet that is absent", args: run("--subnet", "nowhere"), code: 2, says: []string{"nowhere"}},
		{name: "a port that is taken", args: run("--publish", "7000:1/tcp"), code: 7, says: []string{"7000"}},
		{name: "an isolation that is not built", args: run("--isolation", "vm"), code: 2, says: []string{"vm"}},
	}
}

// badImages are images that must not run, each asked for as acme/bad.
func badImages(t *testing.T) []badInput {
	t.Helper()
	run := func(path string) []string {
		return []string{"run", "--tenant", "acme", "--name", "bad", "--memory", "64MiB", "oci-archive:" + path}
	}
	write := func(body []byte) string {
		path := filepath.Join(t.TempDir(), "image.tar")
		writeFile(t, path, string(body))
		return path
	}
	archive := func(edit func(*ociimage.Spec)) string { return hosttest.BusyboxArchive(t, edit) }
	whole, err := os.ReadFile(archive(func(*ociimage.Spec) {}))
	if err != nil {
		t.Fatal(err)
	}
	return []badInput{
		{name: "image is missing", args: run("/nowhere.tar"), code: 4, says: []string{"/nowhere.tar"}},
		{name: "image is truncated", args: run(write(whole[:len(whole)/2])), code: 2, says: []string{"image"}},
		{name: "image is none", args: run(write([]byte("this is no archive"))), code: 2, says: []string{"image"}},
		{name: "image of another architecture", args: run(archive(func(s *ociimage.Spec) { s.Architecture = "s390x" })), code: 2, says: []string{"s390x"}},
		{name: "image with a user out of range", args: run(archive(func(s *ociimage.Spec) { s.Config.User = "99999999999" })), code: 2, says: []string{"99999999999"}},
		{name: "image with a work folder of a descriptor", args: run(archive(func(s *ociimage.Spec) { s.Config.WorkingDir = "/proc/self/fd/7" })), code: 2, says: []string{"/proc/self/fd/7"}},
	}
}

// api asks the agent over its socket, as a program would.
func (h *host) api(method, path, ifMatch, body string) (int, string) {
	h.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", config.PathsBelow(h.root).Socket())
	}}}
	req, err := http.NewRequest(method, "http://gpuhost"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	resp, err := client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// staleWrite writes to a tenant as it was before somebody else changed it.
func staleWrite(t *testing.T, h *host) {
	const body = `{"apiVersion":"gpuhost/v1","kind":"Tenant","metadata":{"name":"acme"},"spec":{"quota":{"gpus":%d}}}`
	path := "/v1/tenants/acme"
	if status, text := h.api("PUT", path, "", fmt.Sprintf(body, 5)); status/100 != 2 {
		t.Fatalf("a write: %d %s", status, text)
	}
	status, text := h.api("PUT", path, `"1"`, fmt.Sprintf(body, 8))
	if status != http.StatusConflict && status != http.StatusPreconditionFailed || !strings.Contains(text, `"conflict"`) {
		t.Errorf("a stale write: %d %s", status, text)
	}
	h.apply(h.twoTenants("7000"))
}

// anotherAgent: a second one over the same root leaves the first in peace.
func anotherAgent(t *testing.T, h *host) {
	out := finish(t, h.command("agent", "--sim", "dgx-h100", "--root", h.root, "--config", h.settings))
	if out.code != 7 || !strings.Contains(out.stderr, "another") {
		t.Errorf("a second agent: %s\nwant exit code 7", out)
	}
	h.expect(0, "status")
}

// newerState: an agent that finds what it cannot read leaves it as it is.
func newerState(t *testing.T, h *host) {
	h.kill()
	path := filepath.Join(h.root, "var/lib/state.db")
	state, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.ReplaceAll(state, []byte(`"minReader":1}`), []byte(`"minReader":9}`))
	if bytes.Equal(newer, state) {
		t.Fatal("the state file has no version")
	}
	writeFile(t, path, string(newer))
	out := finish(t, h.command("agent", "--sim", "dgx-h100", "--root", h.root, "--config", h.settings))
	if out.code != 2 || !strings.Contains(out.stderr, "a newer gpuhost wrote it") || !strings.Contains(out.stderr, "hint:") {
		t.Errorf("over a newer state: %s\nwant exit code 2", out)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, newer) {
		t.Errorf("the newer file was changed: %v", err)
	}
	writeFile(t, path, string(state))
	h.mustStart()
}

// TestDiskFull: what does not fit is refused, tenants go on, and the host mends
// itself when there is room.
func TestDiskFull(t *testing.T) {
	h := newHost(t)
	lib := filepath.Join(h.root, "var/lib")
	if err := os.MkdirAll(lib, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", lib, "tmpfs", 0, "size=48m,mode=711"); err != nil {
		t.Fatal(err)
	}
	h.mustStart()
	h.run("acme", "a", []string{"--gpus", "1"}, "sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
	h.settled()
	a := h.processOf("acme/a")
	ballast := filepath.Join(lib, "ballast")
	fill(t, ballast)
	other := hosttest.BusyboxArchive(t, func(s *ociimage.Spec) {
		s.Layers = append(s.Layers, ociimage.Layer{ociimage.File("big", 0o644, strings.Repeat("gpu", 1<<20))})
	})
	out := h.gpuhost("run", "--tenant", "acme", "--name", "bad", "--memory", "64MiB", "oci-archive:"+other)
	if out.code == 0 || !strings.Contains(out.stderr, "space") && !strings.Contains(out.stderr, "missing") {
		t.Errorf("an image that does not fit: %s", out)
	}
	if now := h.processOf("acme/a"); now != a {
		t.Errorf("a was disturbed: %s, was %s", now, a)
	}
	h.expect(0, "exec", "acme/a", "--", "true")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	h.run("acme", "later", nil, "sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
	h.settled()
}

// fill writes until the file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); ; {
		if _, err := f.Write(chunk); err != nil {
			return
		}
	}
}
