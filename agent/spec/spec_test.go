package spec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// contractExample is the part of the contract's own example that is built.
const contractExample = `kind: Host
spec:
  reserved: {cpus: 2, memory: 8GiB}
  overcommit: {cpu: 1}
  handover: {withoutReset: quarantine}
---
kind: Tenant
metadata: {name: acme}
spec: {quota: {instances: 10, gpus: 4, cpus: 64, memory: 512GiB}}
---
kind: Instance
metadata: {tenant: acme, name: train-1, labels: {app: api}}
spec:
  image: registry.example/debian:12
  pullPolicy: missing
  pullSecret: registry
  command: [python, train.py]
  env: {KEY: value, TOKEN: {secret: registry/password}, N: 8}
  user: "1000"
  state: running
  restart: on-failure
  isolation: container
  resources: {cpus: 1.5, memory: 128GiB, pids: 4096, shm: 16GiB}
  stopGrace: 1m30s
  gpus: {count: 2, model: H100}
  network: {subnet: default, securityGroups: [web], address: 10.0.1.7}
  publish: ["2222:22/tcp", "53:53/udp", "80:8080"]
---
kind: Secret
metadata: {tenant: acme, name: registry}
spec: {data: {username: u, password: p}}
---
kind: Network
metadata: {tenant: acme, name: default}
spec: {cidr: 10.0.0.0/16}
---
kind: Subnet
metadata: {tenant: acme, name: default}
spec: {network: default, cidr: 10.0.1.0/24, acl: ""}
---
kind: SecurityGroup
metadata: {tenant: acme, name: web}
spec:
  ingress: [{action: accept, protocol: tcp, ports: "22,80,8000-9000", remote: 0.0.0.0/0},
            {action: accept, protocol: all, remote: "sg:web"}]
  egress:  [{action: accept, protocol: all, remote: 0.0.0.0/0}]
`

func mustDecode(t *testing.T, text string) []*Object {
	t.Helper()
	objects, err := Decode("t.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// defaulted applies defaults to all of a text's objects.
func defaulted(t *testing.T, text string) []*Object {
	t.Helper()
	objects := mustDecode(t, text)
	for _, o := range objects {
		Default(o)
	}
	return objects
}

func TestContractExample(t *testing.T) {
	objects := defaulted(t, contractExample)
	for _, o := range objects {
		if err := Validate(o); err != nil {
			t.Error(err)
		}
	}
	if err := ValidateSet(objects); err != nil {
		t.Error(err)
	}
	got := objects[2].Spec.(*InstanceSpec)
	want := &InstanceSpec{
		Image: "registry.example/debian:12", PullPolicy: PullMissing, PullSecret: "registry",
		Command: []string{"python", "train.py"},
		Env:     map[string]EnvValue{"KEY": {Value: "value"}, "TOKEN": {Secret: "registry/password"}, "N": {Value: "8"}},
		User:    "1000", State: StateRunning, Restart: RestartOnFailure, Isolation: TierContainer,
		Resources: ResourcesSpec{CPUs: 1500, Memory: 128 << 30, Pids: 4096, Shm: 16 << 30},
		StopGrace: Duration(90e9), GPUs: GPURequest{Count: 2, Model: "H100"},
		Network: InstanceNetwork{Subnet: "default", SecurityGroups: []string{"web"}, Address: "10.0.1.7"},
		Publish: []Publish{{2222, 22, "tcp"}, {53, 53, "udp"}, {80, 8080, "tcp"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEncodeReadsBack(t *testing.T) {
	objects := mustDecode(t, contractExample)
	text, err := Encode(objects...)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(string(text))
	if diff := cmp.Diff(objects, mustDecode(t, string(text))); diff != "" {
		t.Error(diff)
	}
}
