#!/usr/bin/env bash
# Runs the lab's scenarios on a booted Debian guest, all of them or those named:
#
#   packaging/lab/lab.sh [SCENARIO...]
#
# KEEP=1 gives a console on the guest at the end, or after the first failure;
# VERBOSE=1 shows what every step prints; CI=true cuts the power at four points only. What it leaves lies in build/lab:
# image/ (the guest, kept for the next time) and run/ (steps.log, to watch a step while
# it runs; journal and console of each machine).
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
	cp -r README.md packaging/lab/scenarios packaging/demo "$payload/"
	mkdir "$payload/packages" "$payload/crash"
	cp build/packages/out/*_amd64.deb "$payload/packages/"
	# An agent that takes the machine's power away where a scenario says.
	CGO_ENABLED=0 go build -trimpath -tags crashtest -o "$payload/crash/gpuhost" .
	mke2fs -q -F -t ext4 -L gpuhost-lab -d "$payload" "$lab/payload.img" 512M
}

mkdir -p "$lab"
exec 9>"$lab/.lock"
flock --nonblock 9 || { echo 'error: a guest of this folder runs already' >&2 && exit 1; }
nice -n 5 packaging/lab/guest/build.sh "$lab/image"
make_payload
CGO_ENABLED=0 go build -trimpath -o "$lab/lab" ./packaging/lab/cmd
"$lab/lab" ${CI:+-sample 4} ${KEEP:+-keep} ${VERBOSE:+-v} -lab "$lab" "$@"
