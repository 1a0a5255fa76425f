# The agent is removed: nothing of it is left on the host.
#: needs install

## everything is deleted, and the agent removed
eventually 60 gpuhost status
clean
systemctl disable --now gpuhost
gpuhost agent --remove

## nothing is left
left() {
	find /sys/fs/cgroup -name 'gpuhost*' -path '*gpuhost-*'
	grep gpuhost /proc/mounts
	ip netns list | grep -v '^outside'
	nft list tables
	pgrep -l 'gpuhost|warden|containerd|nvml'
	ls -A /run/gpuhost
	true
}
left
[ -z "$(left 2>/dev/null)" ]
