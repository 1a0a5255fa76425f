# What every step has at hand. Scenarios are read by operators: what an operator
# types stands in the step, what only a test needs stands here.

lab=/opt/lab
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

# eventually SECONDS COMMAND...: until it succeeds; it is shown when it never does.
eventually() {
	local deadline=$((SECONDS + $1))
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
