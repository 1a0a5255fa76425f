#!/usr/bin/env bash
# Runs the lab's scenarios on a booted Debian guest, all of them or those named:
#
#   packaging/lab/lab.sh [SCENARIO...]
#
# KEEP=1 gives a console on the guest at the end, or after the first failure;
# VERBOSE=1 shows what every step prints. What it leaves lies in build/lab:
# image/ (the guest, kept for the next time) and run/ (journal and console of each
# machine).
set -euo pipefail

cd "$(dirname "$0")/../.."
lab=build/lab
payload=$lab/payload

# make_payload makes the guest's second drive: what changes with every build.
make_payload() {
	rm -rf "$payload"
	mkdir -p "$payload"
	CGO_ENABLED=0 go build -trimpath -o "$payload/driver" ./packaging/lab/guest/driver
	build/bin/mkimage -o "$payload/busybox.tar"
	cp -r packaging/lab/scenarios packaging/demo "$payload/"
	cp_tree
	mke2fs -q -F -t ext4 -L gpuhost-lab -d "$payload" "$lab/payload.img" 512M
}

# cp_tree copies what the packages install.
cp_tree() {
	install -D -t "$payload/tree/usr/bin" build/bin/gpuhost
	install -D -t "$payload/tree/usr/libexec/gpuhost" build/libexec/* build/runtime/bin/{containerd,containerd-shim-runc-v2,runc}
}

nice -n 5 packaging/lab/guest/build.sh "$lab/image"
make_payload
CGO_ENABLED=0 go build -trimpath -o "$lab/lab" ./packaging/lab/cmd
exec "$lab/lab" ${KEEP:+-keep} ${VERBOSE:+-v} -lab "$lab" "$@"
