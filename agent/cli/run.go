package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// runFlags are the flags of "gpuhost run", as written.
type runFlags struct {
	name       string
	gpus       string
	model      string
	cpus       string
	memory     string
	pids       int64
	shm        string
	groups     []string
	subnet     string
	publish    []string
	env        []string
	envSecret  []string
	labels     []string
	isolation  string
	user       string
	restart    string
	pull       string
	pullSecret string
	count      int
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run IMAGE [flags] [-- COMMAND...]",
		Short: "Create instances and start them",
		Long: `Create instances and start them.

IMAGE is a reference of a registry, or oci-archive:FILE. Without COMMAND the image's own
entrypoint runs. With --count N the instances are called NAME-1 to NAME-N.`,
		Example: `  gpuhost run debian:12 --tenant acme --name train-1 --gpus 2 --publish 2222:22/tcp -- sleep infinity
  gpuhost run oci-archive:busybox.tar --count 3 --name web`,
		Args: args(1, -1, "an image"),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.run(cmd.Context(), given[0], given[1:], f)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(true)
	flags.StringVar(&f.name, "name", "", "the instance's name and host name (default: made from the image)")
	flags.StringVar(&f.gpus, "gpus", "", "number of GPUs, or mig:PROFILE")
	flags.StringVar(&f.model, "gpu-model", "", "only GPUs of this model")
	flags.StringVar(&f.cpus, "cpus", "", "CPUs, for example 16 or 0.5 (default: the host's share)")
	flags.StringVar(&f.memory, "memory", "", "memory, for example 128GiB (default: the host's share)")
	flags.Int64Var(&f.pids, "pids", 0, "most processes and threads")
	flags.StringVar(&f.shm, "shm", "", "size of /dev/shm")
	flags.StringArrayVar(&f.groups, "security-group", nil, "bind a security group; may be repeated (default: default)")
	flags.StringVar(&f.subnet, "subnet", "", "the subnet (default: default)")
	flags.StringArrayVar(&f.publish, "publish", nil, "HOSTPORT:PORT/PROTOCOL; may be repeated")
	flags.StringArrayVar(&f.env, "env", nil, "KEY=VALUE; may be repeated")
	flags.StringArrayVar(&f.envSecret, "env-secret", nil, "KEY=SECRET/KEY, a value of a secret; may be repeated")
	flags.StringArrayVar(&f.labels, "label", nil, "KEY=VALUE; may be repeated")
	flags.StringVar(&f.isolation, "isolation", "", "container")
	flags.StringVar(&f.user, "user", "", "numeric UID or UID:GID (default: the image's)")
	flags.StringVar(&f.restart, "restart", "", "on-failure, always or never")
	flags.StringVar(&f.pull, "pull", "", "missing, always or never")
	flags.StringVar(&f.pullSecret, "pull-secret", "", "the secret with the registry's username and password")
	flags.IntVar(&f.count, "count", 1, "how many")
	return cmd
}

func (a *app) run(ctx context.Context, image string, command []string, f runFlags) error {
	if f.count < 1 {
		return usage("--count %d: at least 1", f.count)
	}
	template, err := a.template(ctx, image, command, f)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	result, err := c.Run(ctx, api.RunRequest{Template: template, Count: f.count})
	if err != nil {
		return err
	}
	if err := a.finish(ctx, result.Changes...); err != nil || a.noWait {
		return err
	}
	return a.showStarted(ctx, result)
}

// showStarted prints the instances as they are now: the answer to the request
// was given before they started.
func (a *app) showStarted(ctx context.Context, result api.ApplyResult) error {
	if !a.structured() {
		for _, one := range result.Objects {
			fmt.Fprintln(a.Out, nameOf(one.Object))
		}
		return nil
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	var objects []*spec.Object
	for _, one := range result.Objects {
		o, err := c.Get(ctx, one.Object.Ref())
		if err != nil {
			return err
		}
		objects = append(objects, o)
	}
	if len(objects) == 1 {
		return a.show(objects[0], nil, nil)
	}
	return a.show(api.List[*spec.Object]{Items: objects}, nil, nil)
}

// template makes the instance that the flags describe. The agent validates it;
// here only what is no field's own text is read.
func (a *app) template(ctx context.Context, image string, command []string, f runFlags) (*spec.Object, error) {
	tenant, err := a.ownTenant(ctx)
	if err != nil {
		return nil, err
	}
	if strings.Contains(f.name, "/") {
		ref, err := a.ref(ctx, spec.KindInstance, f.name)
		if err != nil {
			return nil, err
		}
		tenant, f.name = ref.Tenant, ref.Name
	}
	if image, err = absoluteArchive(image); err != nil {
		return nil, err
	}
	in := &spec.InstanceSpec{Image: image, Command: command, User: f.user, Isolation: f.isolation, Restart: f.restart,
		PullPolicy: f.pull, PullSecret: f.pullSecret,
		Network: spec.InstanceNetwork{Subnet: f.subnet, SecurityGroups: f.groups}}
	if err := fillRun(in, f); err != nil {
		return nil, err
	}
	labels, err := pairs("label", f.labels)
	return &spec.Object{
		APIVersion: spec.APIVersion, Kind: spec.KindInstance,
		Metadata: spec.Metadata{Tenant: tenant, Name: f.name, Labels: labels}, Spec: in,
	}, err
}

// fillRun parses the flags that have a notation of their own.
func fillRun(in *spec.InstanceSpec, f runFlags) (err error) {
	if in.GPUs, err = gpuRequest(f.gpus, f.model); err != nil {
		return err
	}
	if in.Resources, err = f.resources(); err != nil {
		return err
	}
	if in.Env, err = f.environment(); err != nil {
		return err
	}
	for _, text := range f.publish {
		port, err := spec.ParsePublish(text)
		if err != nil {
			return err
		}
		in.Publish = append(in.Publish, port)
	}
	return nil
}

func (f runFlags) resources() (r spec.ResourcesSpec, err error) {
	r.Pids = f.pids
	if f.cpus != "" {
		if r.CPUs, err = spec.ParseCPU(f.cpus); err != nil {
			return r, err
		}
	}
	for _, q := range []struct {
		text string
		to   *spec.Bytes
	}{{f.memory, &r.Memory}, {f.shm, &r.Shm}} {
		if q.text == "" {
			continue
		}
		if *q.to, err = spec.ParseBytes(q.text); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (f runFlags) environment() (map[string]spec.EnvValue, error) {
	literal, err := pairs("env", f.env)
	if err != nil {
		return nil, err
	}
	secret, err := pairs("env-secret", f.envSecret)
	if err != nil || len(literal)+len(secret) == 0 {
		return nil, err
	}
	env := make(map[string]spec.EnvValue, len(literal)+len(secret))
	for key, value := range literal {
		env[key] = spec.EnvValue{Value: value}
	}
	for key, value := range secret {
		if _, twice := env[key]; twice {
			return nil, usage("%s is given by --env and by --env-secret", key)
		}
		env[key] = spec.EnvValue{Secret: value}
	}
	return env, nil
}

// pairs reads KEY=VALUE flags.
func pairs(flag string, texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	all := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usage("--%s %q is not KEY=VALUE", flag, text)
		}
		if _, twice := all[key]; twice {
			return nil, usage("--%s %s is given twice", flag, key)
		}
		all[key] = value
	}
	return all, nil
}

// gpuRequest reads "2" or "mig:3g.40gb".
func gpuRequest(text, model string) (spec.GPURequest, error) {
	request := spec.GPURequest{Model: model}
	if text == "" {
		if model != "" {
			return request, usage("--gpu-model needs --gpus")
		}
		return request, nil
	}
	if profile, ok := strings.CutPrefix(text, "mig:"); ok {
		request.MIG, request.Count = profile, 1
		return request, nil
	}
	count, err := strconv.Atoi(text)
	if err != nil || count < 0 {
		return request, fault.New(fault.Invalid, "--gpus "+quoted(text), "is neither a number nor mig:PROFILE").
			WithHint("for example --gpus 2 or --gpus mig:3g.40gb")
	}
	request.Count = count
	return request, nil
}

// absoluteArchive makes a file's path one the agent finds from anywhere.
func absoluteArchive(image string) (string, error) {
	file, ok := strings.CutPrefix(image, spec.ArchiveScheme)
	if !ok || file == "" {
		return image, nil
	}
	absolute, err := filepath.Abs(file)
	return spec.ArchiveScheme + absolute, fault.Wrap(fault.Invalid, "image "+image, err)
}
