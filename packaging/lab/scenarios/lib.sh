# What every step has at hand. Scenarios are read by operators: what an operator
# types stands in the step, what only a test needs stands here.

lab=/opt/lab
export DEBIAN_FRONTEND=noninteractive
image=oci-archive:$lab/busybox.tar

trap 'echo "line $LINENO: failed: $BASH_COMMAND"' ERR

fail() {
	echo "$*"
	exit 1
}

# refused COMMAND...: it must fail.
refused() {
	if "$@"; then fail "this should have been refused: $*"; fi
}

# eventually SECONDS COMMAND...: until it succeeds; it is shown when it never does. Where
# the guest is slow (the lab measures that at its boot) it has as many times more.
eventually() {
	local deadline=$((SECONDS + $1 * slow))
	shift
	until "$@" >/tmp/eventually 2>&1; do
		if ((SECONDS >= deadline)); then
			cat /tmp/eventually
			fail "never came true: $*"
		fi
		sleep 0.2
	done
}

# outside COMMAND...: on the machine at the other end of the cable.
outside() { ip netns exec outside "$@"; }

# instance TENANT/NAME FIELD: a field of its status, like phase, pid or oom.
instance() { gpuhost get instance "$1" -o json | sed -n "s/^ *\"$2\": \"\\{0,1\\}\\([^\",]*\\)\"\\{0,1\\},\\{0,1\\}\$/\\1/p" | head -n 1; }

# process TENANT/NAME: its process and when that began, in the kernel's words.
process() {
	local pid stat
	pid=$(instance "$1" pid)
	stat=$(sed 's/.*) //' "/proc/$pid/stat")
	echo "process $pid since $(cut -d' ' -f20 <<<"$stat")"
}

# cgroup TENANT/NAME: the folder of its cgroup.
cgroup() { echo "/sys/fs/cgroup$(sed 's/^0:://' "/proc/$(instance "$1" pid)/cgroup")"; }

# clean removes every tenant's instances and waits until their GPUs are free.
clean() {
	gpuhost get instances -o name | xargs -r gpuhost rm --yes
	eventually 60 all_free
}
all_free() { [ "$(gpuhost gpu list | grep -c Free)" = 8 ]; }

# answers: b's published port answers the world.
answers() { outside bash -c 'exec 3<>/dev/tcp/198.51.100.1/7000; echo hello >&3; IFS= read -r -t 10 answer <&3; [ "$answer" = hello ]'; }

# counted_on: the connection of survive.sh goes on.
counted_on() {
	local before
	before=$(wc -l </root/counted)
	eventually 60 grew "$before"
	refused grep -q broken /root/counted
}
grew() { (($(wc -l </root/counted) > $1)); }

# undisturbed: the processes are those that /root/both names.
undisturbed() { [ "$(process acme/a && process globex/b)" = "$(</root/both)" ]; }

# running fails where a process, cgroup, mount, namespace, table or link of the
# agent is left.
running() {
	(
		set +e
		trap - ERR
		pgrep -af '/libexec/gpuhost/|/bin/gpuhost'
		find /sys/fs/cgroup -path '*gpuhost*' -type d
		grep gpuhost /proc/mounts | grep -v /opt/lab
		ip netns list | grep -v '^outside'
		ip -br link | awk '{print $1}' | grep -v -e '^lo$' -e '^uplink0'
		nft list tables
		find /run/gpuhost 2>/dev/null
		true
	) | tee /root/running
	[ ! -s /root/running ] || fail "left of the agent: $(wc -l </root/running) things"
}

# power_cut_at POINT: from here on, until the next boot, the agent is one that takes
# the machine's power away at a step: "before isolation/start".
power_cut_at() {
	install -d /run/systemd/system/gpuhost.service.d
	cat >/run/systemd/system/gpuhost.service.d/zz-power.conf <<-EOF
		[Service]
		ExecStart=
		ExecStart=$lab/crash/gpuhost agent --sim dgx-h100
		Environment="GPUHOST_CRASH_AT=$1" GPUHOST_CRASH_HOW=power
	EOF
	systemctl daemon-reload
	systemctl restart gpuhost
	eventually 120 gpuhost status
}

# readme HEADING [SED]: does what README.md says below a heading, line by line: the
# first block of code there, after an edit of what a machine without a network lacks.
readme() {
	local lines line
	mapfile -t lines < <(awk -v heading="## $1" '
		$0 == heading {below = 1}
		below && /^```/ {if (inside) exit; inside = 1; next}
		inside' $lab/README.md | sed -E "${2:-}")
	((${#lines[@]})) || fail "README.md has no block of code below \"## $1\""
	for line in "${lines[@]}"; do
		echo "\$ $line"
		eval "$line"
	done
}
