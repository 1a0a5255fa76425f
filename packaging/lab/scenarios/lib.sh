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
