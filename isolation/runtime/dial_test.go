package runtime

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

// TestARegistryLeadsNowhereOnTheHost: a registry that the operator allowed sends the
// agent on to a service of the host, in each of the ways it has.
func TestARegistryLeadsNowhereOnTheHost(t *testing.T) {
	h := newHost(t)
	var seen atomic.Int32
	secret := httptest.NewUnstartedServer(http.NotFoundHandler())
	secret.Config.ConnState = func(net.Conn, http.ConnState) { seen.Add(1) }
	secret.Start()
	defer secret.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"realm of its tokens": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token?account=%s",service="test"`, secret.URL, goodUser))
			w.WriteHeader(http.StatusUnauthorized)
		},
		"redirect": func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, secret.URL+"/latest/meta-data", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			registry := httptest.NewServer(answer)
			defer registry.Close()
			h.allow(registry)
			ref := strings.TrimPrefix(registry.URL, "http://") + "/app:1"
			_, err := h.client.PrepareImage(t.Context(), isolation.ImageRequest{Tenant: "acme", Ref: ref, Login: loginAs(goodUser, goodPassword)}, nil)
			if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "address of the host itself") {
				t.Errorf("have %v of kind %q", err, fault.KindOf(err))
			}
			checkNoSecrets(t, err.Error())
		})
	}
	ref := strings.TrimPrefix(secret.URL, "http://") + "/app:1"
	if _, err := h.client.PrepareImage(t.Context(), isolation.ImageRequest{Tenant: "acme", Ref: ref}, nil); !fault.Is(err, fault.Forbidden) {
		t.Errorf("named at once: have %v", err)
	}
	if n := seen.Load(); n > 0 {
		t.Errorf("the host's service saw %d connections", n)
	}
}

func TestMayConnect(t *testing.T) {
	local := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000"), netip.MustParseAddrPort("[::1]:5000")}
	for address, want := range map[string]bool{
		"192.0.2.1:443": true, "10.0.0.1:443": true, "[2001:db8::1]:443": true, "[::ffff:192.0.2.1]:443": true,
		"127.0.0.1:5000": true, "[::ffff:127.0.0.1]:5000": true, "[::1]:5000": true,
		"127.0.0.1:5001": false, "127.0.0.2:5000": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false,
		"169.254.169.254:80": false, "[fe80::1%eth0]:80": false, "[::ffff:169.254.169.254]:80": false,
		"0.0.0.0:80": false, "[::]:80": false, "224.0.0.1:80": false, "[ff02::1]:80": false, "255.255.255.255:80": false,
	} {
		if err := mayConnect(netip.MustParseAddrPort(address), local); (err == nil) != want {
			t.Errorf("%s: have %v", address, err)
		}
	}
}
