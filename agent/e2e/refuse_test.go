package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// registryAddress is where a test's registry listens, in a network namespace that is
// the test's own.
const registryAddress = "127.0.0.1:5000"

// What a registry is tried with in vain.
const (
	wrongUser     = "r0bot-of-acme"
	wrongPassword = "wr0ng-pa55word"
)

// refusing is a registry that wants other credentials, and as careless as a real
// one may be: what it answers repeats what it was asked.
func refusing(token bool) http.Handler {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	challenge := `Basic realm="test"`
	if token {
		challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, registryAddress)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && password != "right":
			_ = r.ParseForm()
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]any{"details": fmt.Sprintf("refused: %s %s %s", r.Header.Get("Authorization"), r.Form, r.URL)})
		case token || password != "right":
			w.Header().Set("WWW-Authenticate", challenge)
			http.Error(w, "refused: "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		default:
			inner.ServeHTTP(w, r)
		}
	})
}

// wrongCredentials: a registry refuses, and nothing that anybody reads repeats what
// was tried.
func wrongCredentials(t *testing.T, h *host, token bool) {
	server := httptest.NewUnstartedServer(refusing(token))
	server.Listener.Close()
	var err error
	if server.Listener, err = net.Listen("tcp", registryAddress); err != nil {
		t.Fatal(err)
	}
	server.Start()
	defer server.Close()
	h.apply(fmt.Sprintf("{apiVersion: gpuhost/v1, kind: Secret, metadata: {tenant: acme, name: registry}, spec: {data: {username: %s, password: %s}}}",
		wrongUser, wrongPassword))
	out := h.expect(6, "run", "--tenant", "acme", "--name", "bad", "--memory", "64MiB", "--pull-secret", "registry",
		registryAddress+"/app:1")
	for where, text := range map[string]string{
		"the answer": out.String(), "the log": h.log(), "the events": h.expect(0, "events").stdout,
		"the object": h.expect(0, "get", "instance", "acme/bad", "-o", "json").stdout, "the changes": h.expect(0, "changes", "-o", "json").stdout,
	} {
		both := base64.StdEncoding.EncodeToString([]byte(wrongUser + ":" + wrongPassword))
		for _, secret := range []string{wrongPassword, both, wrongUser} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", where, secret)
			}
		}
	}
	h.expect(0, "rm", "--yes", "acme/bad")
}

// greedyImage: labels that mean something to the host's programs, volumes over what
// the host mounts and an entry point in the host's process table get it nothing.
func greedyImage(t *testing.T, h *host) {
	archive := hosttest.BusyboxArchive(t, func(s *ociimage.Spec) {
		s.Config.Labels = map[string]string{
			"gpuhost/uid": "aaaaaaaa", "gpuhost/user": "0:0", "gpuhost/fingerprint": "{}", "containerd.io/gc.root": "true",
			"io.containerd.runc.v2.group": "all", "evil": "\x1b[2J\n",
		}
		s.Config.Volumes = map[string]struct{}{"/dev": {}, "/proc": {}, "/usr/local/nvidia": {}, "../../../etc": {}, "/data": {}}
		s.Config.Entrypoint = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"}
	})
	h.expect(0, "run", "--tenant", "acme", "--name", "greedy", "--memory", "64MiB", "oci-archive:"+archive)
	mounts := h.expect(0, "exec", "acme/greedy", "--", "cat", "/proc/self/mountinfo").stdout
	if strings.Contains(mounts, " /data ") || strings.Contains(mounts, " /etc ") {
		t.Errorf("a volume of the image is mounted:\n%s", mounts)
	}
	h.expect(0, "audit", "acme/greedy")
	h.expect(0, "rm", "--yes", "acme/greedy")

	entry := hosttest.BusyboxArchive(t, func(s *ociimage.Spec) { s.Config.Entrypoint = []string{"/proc/1/root/bin/sh\x00"} })
	out := h.gpuhost("run", "--tenant", "acme", "--name", "greedy", "--memory", "64MiB", "oci-archive:"+entry)
	if out.code != 2 || strings.Contains(out.stderr, "\x00") {
		t.Errorf("an entry point with a zero byte: %s\nwant exit code 2", out)
	}
	h.expect(0, "rm", "--yes", "acme/greedy")
}

// foreignDrop: no accept of ours can override a drop of somebody else, so doctor
// names it.
func foreignDrop(t *testing.T, h *host) {
	h.expect(0, "doctor", "foreign-rules")
	runTool(t, "nft", "add table inet other; add chain inet other forward { type filter hook forward priority 0; policy drop; }")
	out := h.gpuhost("doctor", "foreign-rules")
	runTool(t, "nft", "delete table inet other")
	if !strings.Contains(out.stdout, "warn") || !strings.Contains(out.stdout, "inet other forward") || !strings.Contains(out.stdout, "hint") {
		t.Errorf("with another manager's drop: %s\nwant a warning with the chain and a hint", out)
	}
	if out := h.expect(0, "doctor", "foreign-rules"); strings.Contains(out.stdout, "other") {
		t.Errorf("without it: %s", out)
	}
}
