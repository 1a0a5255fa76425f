package bench_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/network/nft"
)

// BenchmarkP10Loaded is a full host on which nothing changed: a plan from what the
// lanes know, a verification that reads everything from the kernel, and the first
// one of an agent that remembers nothing.
// The end-to-end side of P3 is measured on the same host: one changed group.
func BenchmarkP10Loaded(b *testing.B) {
	h := newHost(b)
	a := amountsOf()
	h.load(a.hostFull, a.rules)
	h.eventually("nothing is to be done", h.converged)
	r := newReport(b, fmt.Sprintf("P10, P3: %d instances, %d rule entries, nothing changed", a.hostFull, a.rules))
	before := h.generations()
	remembered, typed, verified := h.plans(20), h.commands(20, "plan"), h.verifies(5)
	h.kill()
	h.start()
	fresh := h.firstVerify()
	h.eventually("nothing is to be done", h.converged)
	r.say("plan from the cache, by the API   %s (promised: 50 ms with 500 instances)", remembered)
	r.say("gpuhost plan, process and all     %s", typed)
	r.say("verify, all read from the kernel  %s (promised: 1.5 s with 500 instances)", verified)
	r.say("first verify after kill -9        %s (promised: 1.5 s; other lanes and the audit work meanwhile)", fresh)
	r.say("transactions in the kernel's rules meanwhile: %d (promised: 0), in %d namespaces", h.written(before), len(before))
	r.say("apply of a changed group, command line to command line:")
	r.say("  the group of one instance, %6d rules: %s", a.rules/a.hostFull, h.applies(20, func(i int) string { return h.ownGroup(0, a.rules/a.hostFull, 2000+i) }))
	r.say("  the group of all,               1 rule : %s", h.applies(20, func(i int) string { return h.webGroup(2000 + i) }))
	r.metric(float64(remembered.median().Microseconds())/1000, "plan-ms")
	r.metric(float64(verified.median().Microseconds())/1000, "verify-ms")
	r.metric(float64(fresh.median().Microseconds())/1000, "first-verify-ms")
	r.print()
}

// load has n instances run, with the rules spread over a group of each.
func (h *host) load(n, rules int) {
	h.b.Helper()
	h.many = n
	dir := filepath.Join(h.root, "spec")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.b.Fatal(err)
	}
	// 500 instances of the least there is are five processors, and the machine has two.
	h.write("spec/00.yaml", document("Host", "", "this", "{overcommit: {cpu: 4}}")+
		document("Tenant", "", "acme", "{quota: {instances: 1000}}")+
		document("Network", "acme", "default", "{cidr: 10.0.0.0/16}")+
		document("Subnet", "acme", "default", "{network: default, cidr: 10.0.0.0/16}")+h.webGroup(1))
	for i := range n {
		h.write(fmt.Sprintf("spec/i%03d.yaml", i), h.instance(i, rules/n))
	}
	h.gpuhost("--no-wait", "apply", "--yes", "-f", dir)
	h.eventually("all run", func(ctx context.Context) error { return h.running(ctx, n) })
}

func document(kind, tenant, name, spec string) string {
	if tenant != "" {
		tenant = "tenant: " + tenant + ", "
	}
	return fmt.Sprintf("---\napiVersion: gpuhost/v1\nkind: %s\nmetadata: {%sname: %s}\nspec: %s\n", kind, tenant, name, spec)
}

// instance is one instance and its group of n rules, none of which another
// group has.
func (h *host) instance(i, n int) string {
	return h.ownGroup(i, n, 1000) + document("Instance", "acme", fmt.Sprintf("i%d", i), fmt.Sprintf(
		"\n  image: oci-archive:%s\n  command: [sh, -c, %q]\n  resources: {cpus: 0.01, memory: 16MiB}\n  network: {securityGroups: [g%d, web]}", h.image, task[2], i))
}

// ownGroup is the group of instance i alone: n rules, the first of them for a port.
func (h *host) ownGroup(i, n, port int) string {
	var rules strings.Builder
	for r := range n {
		fmt.Fprintf(&rules, "\n  - {action: accept, protocol: tcp, ports: \"%d\", remote: 172.%d.%d.0/24}", port, 16+i%16, r%256)
		port = 1001 + r
	}
	return document("SecurityGroup", "acme", fmt.Sprintf("g%d", i), "\n  egress: [{action: accept, protocol: all, remote: 0.0.0.0/0}]\n  ingress:"+rules.String())
}

// webGroup is the group that every instance is in.
func (h *host) webGroup(port int) string {
	return document("SecurityGroup", "acme", "web", fmt.Sprintf(
		"\n  ingress: [{action: accept, protocol: tcp, ports: \"%d\", remote: 0.0.0.0/0}]\n  egress: []", port))
}

// plans asks n times what is to be done.
func (h *host) plans(n int) times {
	h.b.Helper()
	var all times
	for range n {
		begin := time.Now()
		if _, err := h.api.Plan(context.Background(), nil); err != nil {
			h.b.Fatal(err)
		}
		all = append(all, time.Since(begin))
	}
	return all
}

// commands runs the command line n times.
func (h *host) commands(n int, args ...string) times {
	h.b.Helper()
	var all times
	for range n {
		all = append(all, took(h.b, h.command(args...)))
	}
	return all
}

// verifies compares the whole host with what is wanted n times; nothing may differ.
func (h *host) verifies(n int) times {
	h.b.Helper()
	var all times
	for range n {
		begin := time.Now()
		found, err := h.api.Verify(context.Background(), nil)
		if err != nil || len(found) > 0 {
			h.b.Fatalf("verify found %v, %v", found, err)
		}
		all = append(all, time.Since(begin))
	}
	return all
}

// firstVerify is how long the first verification took that could read everything.
func (h *host) firstVerify() (first times) {
	h.b.Helper()
	h.eventually("the host can be verified", func(ctx context.Context) error {
		begin := time.Now()
		found, err := h.api.Verify(ctx, nil)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%v differ", found)
		}
		first = times{time.Since(begin)}
		return err
	})
	return first
}

// applies writes n versions of a group, one after the other.
func (h *host) applies(n int, group func(i int) string) times {
	h.b.Helper()
	var all times
	for i := range n {
		file := h.write("group.yaml", group(i))
		all = append(all, took(h.b, h.command("apply", "--yes", "-f", file)))
	}
	return all
}

// generations are the kernel's counts of rule transactions, by namespace: the
// host's own and each VPC's.
func (h *host) generations() map[string]uint32 {
	h.b.Helper()
	pins, err := filepath.Glob(filepath.Join(h.root, "run/netns/vpc-*"))
	if err != nil || len(pins) == 0 {
		h.b.Fatalf("no VPC is pinned: %v", err)
	}
	low, err := nft.Reserve(len(pins) + 1)
	if err != nil {
		h.b.Fatal(err)
	}
	defer low.Close()
	counts := make(map[string]uint32)
	for _, path := range append(pins, "/proc/self/ns/net") {
		counts[path] = generation(h.b, low, path)
	}
	return counts
}

func generation(b *testing.B, low *nft.Descriptors, path string) uint32 {
	b.Helper()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	conn, err := nft.Open(low, file, "unused")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	n, err := conn.Generation()
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// written counts transactions since.
func (h *host) written(before map[string]uint32) int {
	h.b.Helper()
	after, count := h.generations(), 0
	for path := range maps.Keys(before) {
		count += int(after[path] - before[path])
	}
	return count
}
