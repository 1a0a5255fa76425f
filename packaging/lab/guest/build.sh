#!/usr/bin/env bash
# Builds the lab's guest into a folder: root.img (Debian 12 with systemd, ext4),
# and vmlinux and initrd, which are in it.
#
#   packaging/lab/guest/build.sh DIR
#
# A stamp of what decides the result (this script and files/) makes a second call
# free. What the agent brings is not in the image: it comes on a second drive, so
# that a changed agent needs no new image. Needs root, mmdebstrap, e2fsprogs, xz
# and a Debian mirror.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh DIR}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# What an operator's host has, and what scenarios look with: nc, dmsetup.
packages=(
	systemd systemd-sysv udev dbus kmod linux-image-amd64
	nftables iproute2 procps netcat-openbsd busybox-static dmsetup
)

# Nobody reads them in the guest, and they are half of the files.
unread=('/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*')

# Without them the initrd holds a driver for every disk there is, and takes
# longer to unpack than the system to start.
initrd_modules='virtio_pci virtio_blk ext4 crc32c_generic'

# No update comes by itself into a machine without a network, and no disk grows old.
idle=(
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
	e2scrub_all.timer e2scrub_reap.service fstrim.timer
)

stamp() { (cd "$here" && find build.sh files -type f | LC_ALL=C sort | xargs sha256sum) | sha256sum; }

bootstrap() {
	local path options=(--aptopt='APT::Install-Recommends "false"')
	for path in "${unread[@]}"; do
		options+=(--dpkgopt="path-exclude=$path")
	done
	mmdebstrap --variant=minbase --include="$(IFS=, && echo "${packages[*]}")" "${options[@]}" \
		--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
		--essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/lab"' \
		--essential-hook="printf '%s\n' $initrd_modules >\"\$1/etc/initramfs-tools/modules\"" \
		--customize-hook="copy-in $here/files/etc /" \
		--customize-hook='systemctl --root="$1" enable lab-outside.service lab-driver.service' \
		--customize-hook="systemctl --root=\"\$1\" mask ${idle[*]}" \
		--customize-hook='chroot "$1" passwd --delete root' \
		bookworm "$1" "$mirror"
}

# unpack_kernel FILE: the kernel itself, which qemu starts as well (PVH). The guest
# would take longer to unpack it than to run it up to its first process.
unpack_kernel() {
	local offset
	offset=$(LC_ALL=C grep -abo -m 1 -F $'\xfd7zXZ' "$1" | head -n 1 | cut -d: -f1)
	# Not through a pipe: behind the kernel comes what is no xz, and is not read.
	xz --decompress --stdout --single-stream < <(tail -c "+$((offset + 1))" "$1")
}

build() {
	local tree=/mnt
	# In memory: a package manager asks for every file to be on the disk before the next.
	mount -t tmpfs -o size=2G,mode=755 gpuhost-guest "$tree"
	if ! bootstrap "$tree" >"$out/build.log" 2>&1; then
		tail -n 40 "$out/build.log" >&2
		return 1
	fi
	unpack_kernel "$tree"/boot/vmlinuz-* >"$out/vmlinux"
	cp "$tree"/boot/initrd.img-* "$out/initrd"
	mke2fs -q -t ext4 -L gpuhost-guest -d "$tree" "$out/root.img" 4G
}

want=$(stamp)
if [[ -f $out/.stamp && $(<"$out/.stamp") == "$want" ]]; then
	exit 0
fi
# All mounts, those of the tree's /proc and /dev too, end with a namespace of their own:
# nothing is left of a build that is killed, and nothing has to be removed.
if [[ -z ${GPUHOST_GUEST_INSIDE-} ]]; then
	echo 'building the guest image (a few minutes, once)' >&2
	GPUHOST_GUEST_INSIDE=1 exec unshare --mount --propagation private "$0" "$out"
fi
rm -f "$out"/{root.img,vmlinux,initrd,build.log,.stamp}
build
echo "$want" >"$out/.stamp"
