package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	options "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/oci"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
	"github.com/moby/sys/signal"
	"github.com/opencontainers/image-spec/identity"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Labels on containers and snapshots.
const (
	labelUID         = "gpuhost/uid"
	labelGeneration  = "gpuhost/generation"
	labelFingerprint = "gpuhost/fingerprint"
	labelDigest      = "gpuhost/digest" // of the image's manifest
	labelUser        = "gpuhost/user"   // "uid:gid" inside the container
	labelImage       = "gpuhost/image"  // of a snapshot: what it was made from
	// labelKeep keeps a snapshot alive while no container uses it: without it,
	// deleting a container to make it anew would cost the tenant's disk.
	labelKeep = "containerd.io/gc.root"
)

// State reads snapshot, container and task of an instance.
func (c *Client) State(ctx context.Context, tenant string, uid spec.UID) (isolation.ContainerState, error) {
	if tenant == "" {
		return isolation.ContainerState{}, nil // only the kernel knows of it: containerd keeps nothing without a tenant
	}
	ctx = c.tenant(ctx, tenant)
	what := "read container " + string(uid)
	var state isolation.ContainerState
	switch disk, err := c.snapshots().Stat(ctx, string(uid)); {
	case err == nil:
		state.Snapshot, state.DiskImage = true, disk.Labels[labelImage]
	case !errdefs.IsNotFound(err):
		return state, wrap(what, err)
	}
	record, err := c.containerd.ContainerService().Get(ctx, string(uid))
	if errdefs.IsNotFound(err) {
		return state, nil
	}
	if err != nil {
		return state, wrap(what, err)
	}
	state.Container, state.ImageDigest = true, record.Labels[labelDigest]
	state.Generation, _ = strconv.ParseUint(record.Labels[labelGeneration], 10, 64)
	if err := json.Unmarshal([]byte(record.Labels[labelFingerprint]), &state.Fingerprint); err != nil {
		state.Fingerprint = nil // made by somebody else: differs from any lease
	}
	if state.User, err = userOf(record); err != nil {
		return state, wrap(what, err)
	}
	state.Task, err = c.task(ctx, uid)
	return state, wrap(what, err)
}

// Prepare makes snapshot and container where they are missing, the FIFOs and
// the files of /etc. These come after the snapshot, which shows that there is
// something to delete.
func (c *Client) Prepare(ctx context.Context, creation isolation.Creation) error {
	lease := creation.Lease
	ctx = c.tenant(ctx, lease.Tenant)
	what := "make container " + string(lease.UID)
	_, err := c.containerd.ContainerService().Get(ctx, string(lease.UID))
	switch {
	case err == nil:
		return wrap(what, c.makeFiles(lease))
	case errdefs.IsNotFound(err):
		return imageGone(what, c.makeContainer(ctx, creation))
	default:
		return wrap(what, err)
	}
}

// makeFiles makes what lies on the host beside snapshot and container.
func (c *Client) makeFiles(lease isolation.Lease) error {
	if err := c.writeEtc(lease); err != nil {
		return err
	}
	return makePipes(c.config.Paths.IODir(lease.UID))
}

func (c *Client) makeContainer(ctx context.Context, creation isolation.Creation) error {
	image, err := c.image(ctx, creation.Lease.Image)
	if err != nil {
		return err
	}
	if err := c.makeSnapshot(ctx, creation, image); err != nil {
		return err
	}
	if err := c.makeFiles(creation.Lease); err != nil {
		return err
	}
	record, err := c.record(ctx, creation, image)
	if err != nil {
		return err
	}
	_, err = c.containerd.ContainerService().Create(ctx, record)
	return err
}

// imageGone is wrap for what is made from an image that was there a moment ago. A
// conflict is planned again at once, the preparation of the image included.
func imageGone(what string, err error) error {
	if errdefs.IsNotFound(err) {
		return fault.New(fault.Conflict, what, "its image was removed meanwhile: %w", err)
	}
	return wrap(what, err)
}

// makeSnapshot makes the instance's writable layer, idmapped into its range.
func (c *Client) makeSnapshot(ctx context.Context, creation isolation.Creation, image containerd.Image) error {
	lease := creation.Lease
	diffs, err := image.RootFS(ctx)
	if err != nil {
		return err
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: lease.IDs.Start, Size: lease.IDs.Size}}
	labels := map[string]string{labelUID: string(lease.UID), labelImage: creation.Fingerprint.Image(), labelKeep: "true"}
	_, err = c.snapshots().Prepare(ctx, string(lease.UID), identity.ChainID(diffs).String(),
		snapshots.WithLabels(labels), containerd.WithUserNSRemapperLabels(ids, ids))
	if errdefs.IsAlreadyExists(err) {
		return c.sameIDs(ctx, lease, ids[0])
	}
	return err
}

// sameIDs refuses a disk whose files belong to another range: with the lease's range
// its tenant would be nobody there, and the range's next tenant its owner.
func (c *Client) sameIDs(ctx context.Context, lease isolation.Lease, want specs.LinuxIDMapping) error {
	disk, err := c.snapshots().Stat(ctx, string(lease.UID))
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d:%d:%d", want.ContainerID, want.HostID, want.Size)
	for _, label := range []string{snapshots.LabelSnapshotUIDMapping, snapshots.LabelSnapshotGIDMapping} {
		if have := disk.Labels[label]; have != text {
			return fault.New(fault.Invalid, "use disk of "+string(lease.UID), "its files are mapped %q, the tenant's range is %q", have, text).
				WithHint("gpuhost reset %s --tenant %s makes its disk anew", lease.Name, lease.Tenant)
		}
	}
	return nil
}

// record is the container as containerd keeps it.
func (c *Client) record(ctx context.Context, creation isolation.Creation, image containerd.Image) (containers.Container, error) {
	lease := creation.Lease
	config, err := image.Spec(ctx)
	if err != nil {
		return containers.Container{}, err
	}
	built, err := c.build(creation, config)
	if err != nil {
		return containers.Container{}, err
	}
	manifest, err := c.manifest(ctx, image.Target())
	if err != nil {
		return containers.Container{}, err
	}
	anySpec, err := typeurl.MarshalAny(built)
	if err != nil {
		return containers.Container{}, err
	}
	runc, err := typeurl.MarshalAny(c.runcOptions(lease.IDs))
	if err != nil {
		return containers.Container{}, err
	}
	fingerprint, err := json.Marshal(creation.Fingerprint)
	if err != nil {
		return containers.Container{}, err
	}
	return containers.Container{
		ID: string(lease.UID),
		Labels: map[string]string{
			labelUID:                   string(lease.UID),
			labelGeneration:            strconv.FormatUint(lease.Generation, 10),
			labelFingerprint:           string(fingerprint),
			labelDigest:                manifest.Digest.String(),
			labelUser:                  fmt.Sprintf("%d:%d", creation.User.UID, creation.User.GID),
			containerd.StopSignalLabel: stopSignal(config.Config.StopSignal),
		},
		Image:       image.Name(),
		Runtime:     containers.RuntimeInfo{Name: runtimeName, Options: runc},
		Spec:        anySpec,
		SnapshotKey: string(lease.UID),
		Snapshotter: snapshotter,
	}, nil
}

func (c *Client) build(creation isolation.Creation, config imagespec.Image) (*specs.Spec, error) {
	files, locked, err := hardLimits()
	if err != nil {
		return nil, err
	}
	cpus, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	paths := c.config.Paths
	paths.DriverTree = creation.DriverTree
	return oci.Build(oci.Input{
		Files: files, LockedMemory: locked, Lease: creation.Lease, Paths: paths, Image: config.Config, User: creation.User, Env: creation.Env,
		Nodes: creation.Nodes, Controllers: creation.Controllers, CPUs: cpus,
	})
}

// hardLimits are this process's own, which containerd and runc share.
func hardLimits() (files, locked uint64, err error) {
	var nofile, memlock syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &nofile); err != nil {
		return 0, 0, fmt.Errorf("read limit of open files: %w", err)
	}
	if err := syscall.Getrlimit(unix.RLIMIT_MEMLOCK, &memlock); err != nil {
		return 0, 0, fmt.Errorf("read limit of locked memory: %w", err)
	}
	return nofile.Max, memlock.Max, nil
}

// runcOptions: the pipes between shim and container belong to the tenant's
// root, or its /dev/stderr could not be opened again.
func (c *Client) runcOptions(ids isolation.IDRange) *options.Options {
	return &options.Options{
		BinaryName: filepath.Join(c.config.Bin, "runc"),
		Root:       c.config.runcRoot(),
		IoUid:      ids.Start,
		IoGid:      ids.Start,
	}
}

// stopSignal is the image's, or SIGTERM where that is none.
func stopSignal(name string) string {
	if _, err := signal.ParseSignal(name); err != nil {
		return "SIGTERM"
	}
	return name
}

// Delete deletes the files of /etc, unless it is kept the disk, and the container,
// in this order: the container shows that there is something to delete.
func (c *Client) Delete(ctx context.Context, tenant string, uid spec.UID, disk isolation.Disk) error {
	if tenant == "" {
		return nil // only the kernel knows of it: containerd keeps nothing without a tenant
	}
	what := "delete container " + string(uid)
	if !uid.Valid() { // the folder of no uid is that of all
		return fault.New(fault.Internal, what, "%q is no instance's uid", uid)
	}
	ctx = c.tenant(ctx, tenant)
	if err := os.RemoveAll(c.config.Paths.EtcDir(uid)); err != nil {
		return wrap(what, err)
	}
	if disk == isolation.DeleteDisk {
		if err := c.snapshots().Remove(ctx, string(uid)); err != nil && !errdefs.IsNotFound(err) {
			return wrap(what, err)
		}
	}
	err := c.containerd.ContainerService().Delete(ctx, string(uid))
	if errdefs.IsNotFound(err) {
		return nil
	}
	return wrap(what, err)
}

// makePipes makes the FIFOs of a task's output.
func makePipes(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(fifo.Make(filepath.Join(dir, isolation.Stdout)), fifo.Make(filepath.Join(dir, isolation.Stderr)))
}
