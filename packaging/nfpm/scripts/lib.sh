# What the maintainer scripts of deb and rpm share. build.sh puts it in front of each
# and fills in @...@.
#
# No script here stops, restarts or reloads gpuhost-tenants or gpuhost-containerd but
# at removal: tenants are in the one and depend on the other.

state=/var/lib/gpuhost/state.db

say() { echo "gpuhost: $*" >&2; }

# booted: systemd runs this machine. It does not in a chroot or an image build.
booted() { [ -d /run/systemd/system ]; }

# refuse_downgrade ends the installation where the state was written for newer
# readers than the program in this package, before anything is stopped or unpacked.
refuse_downgrade() {
	needed=$(sed -n 's/^minReader=\([0-9][0-9]*\)$/\1/p' "$state.version" 2>/dev/null || true)
	[ "${needed:-0}" -gt @SCHEMA@ ] || return 0
	say "error: $state needs a reader of schema $needed, gpuhost @VERSION@ has @SCHEMA@; nothing was changed"
	say "hint: keep the installed version. The way back to the state of before its upgrade: stop gpuhost, put"
	say "hint: $state.schema@SCHEMA@ in the place of $state, remove $state.version, install @VERSION@ again"
	exit 1
}

# set_up makes groups and folders, and puts the kernel's settings in force.
set_up() {
	systemd-sysusers gpuhost.conf
	systemd-tmpfiles --create gpuhost.conf
	booted || return 0
	/usr/lib/systemd/systemd-sysctl 60-gpuhost.conf || say "warning: not all of /usr/lib/sysctl.d/60-gpuhost.conf is in force"
	systemctl daemon-reload
}

# sound: the program just installed can run with the settings that are there.
sound() {
	if problem=$(gpuhost config check 2>&1); then
		return 0
	fi
	say "error: the settings are not sound for gpuhost @VERSION@:"
	echo "$problem" >&2
	say "the agent of before keeps running, and so do the tenants"
	say "hint: mend /etc/gpuhost/gpuhost.toml, then: systemctl restart gpuhost"
	return 1
}

# take_off ends the tenants and takes the agent off the host. Disks, state and
# settings stay. containerd is needed until the agent's last word.
take_off() {
	booted || return 0
	systemctl stop gpuhost.service gpuhost-tenants.service
	if ! gpuhost agent --remove --yes; then
		say "warning: not everything of gpuhost was taken off this host; a reboot does"
	fi
	systemctl stop gpuhost-containerd.service gpuhost.slice
}
