package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/oci"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"
)

// maxAccounts bounds the image's passwd and group.
const maxAccounts = 1 << 20

// User says whom the instance's container runs as or, where there is none, whom
// one made from the lease would.
func (c *Client) User(ctx context.Context, lease isolation.Lease) (isolation.User, error) {
	ctx = c.tenant(ctx, lease.Tenant)
	what := "find the user of " + string(lease.UID)
	record, err := c.containerd.ContainerService().Get(ctx, string(lease.UID))
	if err == nil {
		user, err := userOf(record)
		return user, wrap(what, err)
	}
	if !errdefs.IsNotFound(err) {
		return isolation.User{}, wrap(what, err)
	}
	image, err := c.image(ctx, lease.Image)
	if err != nil {
		return isolation.User{}, imageGone(what, err)
	}
	config, err := image.Spec(ctx)
	if err != nil {
		return isolation.User{}, imageGone(what, err)
	}
	user, err := oci.ResolveUser(cmp.Or(lease.User, config.Config.User), c.accounts(ctx, lease, image))
	return user, wrap(what, err)
}

// userOf reads the user from the container's label, or from the specification of
// a container that an agent made which set none.
func userOf(record containers.Container) (isolation.User, error) {
	if text, labelled := record.Labels[labelUser]; labelled {
		return oci.ResolveUser(text, nil)
	}
	var stored struct{ Process struct{ User isolation.User } }
	if err := json.Unmarshal(record.Spec.GetValue(), &stored); err != nil {
		return isolation.User{}, fmt.Errorf("read container specification: %w", err)
	}
	return stored.Process.User, nil
}

// accounts reads files of accounts from a view of the image itself, not of the
// disk that the tenant has written to since.
func (c *Client) accounts(ctx context.Context, lease isolation.Lease, image containerd.Image) oci.Accounts {
	return func(file string) ([]byte, error) {
		diffs, err := image.RootFS(ctx)
		if err != nil {
			return nil, err
		}
		// The lease keeps the view from being collected while it is read.
		ctx, done, err := c.containerd.WithLease(ctx)
		if err != nil {
			return nil, err
		}
		defer done(context.WithoutCancel(ctx))
		key := string(lease.UID) + "-accounts"
		mounts, err := c.snapshots().View(ctx, key, identity.ChainID(diffs).String())
		if errdefs.IsAlreadyExists(err) {
			mounts, err = c.snapshots().Mounts(ctx, key)
		}
		if err != nil {
			return nil, fmt.Errorf("view image: %w", err)
		}
		text, err := readAccounts(mounts, file, lease.IDs.Start)
		return text, errors.Join(err, c.snapshots().Remove(ctx, key))
	}
}

func readAccounts(mounts []mount.Mount, file string, owner uint32) ([]byte, error) {
	dir, err := os.MkdirTemp("", "gpuhost-image-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if err := mount.All(readOnly(mounts), dir); err != nil {
		return nil, fmt.Errorf("mount image: %w", err)
	}
	text, err := readInside(dir, "etc/"+file, owner)
	return text, errors.Join(err, mount.UnmountAll(dir, 0))
}

func readOnly(mounts []mount.Mount) []mount.Mount {
	out := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		m.Options = append([]string{"ro", "nosuid", "nodev", "noexec"}, m.Options...)
		out[i] = m
	}
	return out
}

// readInside reads a small regular file below root, following no link on the
// way, with the rights of a tenant's root: what lies there was put there by a
// stranger.
func readInside(root, file string, owner uint32) (text []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not unlocked: it ends with this goroutine, and its
		// changed fsuid with it.
		goruntime.LockOSThread()
		text, err = readAs(root, file, owner)
	}()
	<-done
	return text, err
}

func readAs(root, file string, owner uint32) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	if err := becomeOwner(int(owner)); err != nil {
		return nil, err
	}
	fd, err := unix.Openat2(dir, file, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxAccounts {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", file, maxAccounts)
	}
	return io.ReadAll(io.LimitReader(f, maxAccounts))
}

// becomeOwner gives the calling thread's file accesses the tenant's ids. The
// calls report no error; a second one tells what the first has set.
func becomeOwner(id int) error {
	for name, set := range map[string]func(int) (int, error){"fsgid": unix.SetfsgidRetGid, "fsuid": unix.SetfsuidRetUid} {
		if _, err := set(id); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		if now, err := set(-1); err != nil || now != id {
			return fmt.Errorf("set %s to %d: it is %d", name, id, now)
		}
	}
	return nil
}
