#!/bin/bash
# The main job of gpuhost on one machine, with real commands: two tenants who do
# not trust each other, two GPUs each, on a simulated DGX H100.
#
#   make demo            runs it and removes everything, checked at the end
#   make demo KEEP=1     leaves it running and says how to use it
#
# Its files lie in a new folder below /tmp, or in GPUHOST_DEMO_DIR, which must be
# new, empty or an earlier demo's.
#
# Everything happens in mount, network and process namespaces of its own, so that
# the machine's own addresses and rules stay as they are; cgroup v2 is mounted
# there whatever the machine uses.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
bin=$top/build/bin
work=${GPUHOST_DEMO_DIR:-}
root=$work/root
keep=${KEEP:-}

say() { printf '\n\033[1;34m== %s\033[0m\n' "$*"; }
show() {
	printf '\033[1m$ %s\033[0m\n' "$*"
	"$@"
}
# refused runs a command that must fail, and shows how it does.
refused() {
	printf '\033[1m$ %s\033[0m\n' "$*"
	if "$@"; then die "this should have been refused: $*"; fi
}
die() {
	printf '\033[1;31mdemo: %s\033[0m\n' "$*" >&2
	exit 1
}
gpuhost() { "$bin/gpuhost" "$@"; }
outside() { ip netns exec outside "$@"; }

enter_namespaces() {
	[ "$(id -u)" = 0 ] || die "must run as root (it makes namespaces and cgroups): sudo make demo"
	[ -z "${GPUHOST_DEMO_INSIDE:-}" ] || return 0
	make_folder
	local code=0
	# Who enters the namespaces or ends them needs a pid as it is outside.
	GPUHOST_DEMO_INSIDE=1 GPUHOST_DEMO_DIR=$work sh -c 'echo $$ >"$GPUHOST_DEMO_DIR/pid"
		exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private "$@"' sh "$0" "$@" || code=$?
	[ "$code" = 0 ] && [ -z "$keep" ] || sweep
	local left
	left=$(leftovers)
	[ -z "$left" ] || die "left on the machine: $left"
	if [ "$code" != 0 ]; then
		echo "demo: its files and agent.log are left in $work" >&2
		exit "$code"
	fi
	rm -rf "$work"
	say "nothing is left: no cgroup, mount, namespace, table, process or file"
	exit 0
}

# make_folder makes the demo's folder, or empties the one that an earlier demo left
# in the place that was given. It never removes what is somebody else's.
make_folder() {
	if [ -z "$work" ]; then
		work=$(mktemp -d /tmp/gpuhost-demo.XXXXXX)
	elif [ -e "$work/.gpuhost-demo" ]; then
		rm -rf "$work"
	elif [ -n "$(ls -A "$work" 2>/dev/null)" ]; then
		die "$work holds what is no demo's: set GPUHOST_DEMO_DIR to another folder"
	fi
	mkdir -p "$work"
	chmod 755 "$work" # tenants' root, a user of no privilege, walks through it
	work=$(cd "$work" && pwd)
	root=$work/root
	touch "$work/.gpuhost-demo"
}

mark() { echo "gpuhost-$(cat "$work/hostid" 2>/dev/null || echo none)"; }

cgroups() { find "$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)" -depth -type d -path "*/$(mark)*" 2>/dev/null || true; }

# sweep removes the cgroups of a demo that was interrupted: its processes ended
# with their namespace, its mounts too.
sweep() { cgroups | xargs -r rmdir 2>/dev/null || true; }

# leftovers lists what a demo could leave on the machine outside its namespaces.
leftovers() {
	cgroups
	grep -e "$(mark)" -e "$root" /proc/self/mountinfo || true
	ls -d "/run/$(mark)" 2>/dev/null || true
	grep -lsF "$root" /proc/[0-9]*/cmdline || true
}

# prepare_machine gives the namespaces what a host has: cgroup v2, a network with
# an outside to it.
prepare_machine() {
	umount -R /sys/fs/cgroup 2>/dev/null || true
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/netns
	ip link set lo up
	ip netns add outside
	ip link add uplink0 type veth peer name eth0 netns outside
	ip addr add 198.51.100.1/24 dev uplink0
	ip link set uplink0 up
	ip -n outside addr add 198.51.100.2/24 dev eth0
	ip -n outside link set eth0 up
	ip -n outside link set lo up
	ip route add default via 198.51.100.2
}

start_agent() {
	NO_COLOR=1 setsid "$bin/gpuhost" agent --sim dgx-h100 --root "$root" --config "$top/build/gpuhost.toml" >>"$work/agent.log" 2>&1 &
	agent=$!
	for _ in $(seq 300); do
		if gpuhost status -o json >"$work/status" 2>/dev/null; then
			awk -F'"' '/"hostId"/ {print $4}' "$work/status" >"$work/hostid"
			return 0
		fi
		kill -0 "$agent" 2>/dev/null || { tail -n 20 "$work/agent.log" >&2; die "the agent ended (log above)"; }
		sleep 0.1
	done
	tail -n 20 "$work/agent.log" >&2
	die "the agent did not answer in 30 s (log above)"
}

pids() { gpuhost get instances -o json | tr ',{' '\n\n' | awk -F: '/"pid"/ {print $2}' | tr -d ' }' | sort; }

# talk keeps one connection to b's published port open from the outside and
# writes down every answer.
talk() {
	outside bash -c 'exec 3<>/dev/tcp/198.51.100.1/7000
		n=0; while n=$((n+1)); echo "line $n" >&3; do IFS= read -r -t 2 answer <&3 && echo "$answer"; sleep 0.1; done' >"$1" 2>/dev/null &
}

wait_for_growth() {
	local before after
	before=$(wc -l <"$1")
	for _ in $(seq 50); do
		after=$(wc -l <"$1")
		[ "$after" -gt "$before" ] && return 0
		sleep 0.1
	done
	return 1
}

tour() {
	say "A host with eight GPUs and nobody on it"
	show gpuhost status
	show gpuhost gpu list

	say "What would applying tenants.yaml change, and why?"
	sed "s|@IMAGE@|$work/image.tar|" "$here/tenants.yaml" >"$work/tenants.yaml"
	printf '\033[1m$ gpuhost plan -f tenants.yaml\033[0m\n'
	gpuhost plan -f "$work/tenants.yaml" || [ $? = 3 ] # 3: there is something to change

	say "Make it so"
	show gpuhost apply -f "$work/tenants.yaml"
	show gpuhost get instances -o wide

	say "Who has which GPU?"
	show gpuhost gpu list

	say "a sees its own two nodes, may open them, and can neither see nor make b's"
	show gpuhost exec acme/a -- ls -l /dev
	mine=$(gpuhost exec acme/a -- sh -c 'cd /dev && ls -d nvidia[0-9]* | head -n 1' | tr -d '\r')
	theirs=$(gpuhost exec globex/b -- sh -c 'cd /dev && ls -d nvidia[0-9]* | head -n 1' | tr -d '\r')
	echo "(no driver stands behind a simulated GPU: ENXIO, \"No such device or address\", is the open that was let through)"
	answer=$(show gpuhost exec acme/a -- sh -c "true < /dev/$mine" 2>&1 || true)
	echo "$answer"
	[[ $answer == *"No such device or address"* ]] || die "a may not open its own node"
	refused gpuhost exec acme/a -- mknod "/tmp/stolen" c 195 "${theirs#nvidia}"

	say "Every control, read back from the kernel"
	show gpuhost audit

	say "The network: a cannot reach b, the world reaches b's published port"
	refused gpuhost exec acme/a -- nc -w 2 10.0.1.20 7000
	refused gpuhost exec acme/a -- nc -w 2 198.51.100.1 7000
	outside bash -c 'exec 3<>/dev/tcp/198.51.100.1/7000; echo "hello b" >&3; IFS= read -r -t 5 answer <&3; echo "b answers: $answer"'

	say "Closing the rule cuts the live connection"
	talk "$work/answers"
	talker=$!
	wait_for_growth "$work/answers" || die "the connection does not answer"
	printf '\033[1m$ gpuhost plan -f closed.yaml\033[0m\n'
	gpuhost plan -f "$here/closed.yaml" || [ $? = 3 ]
	show gpuhost apply -f "$here/closed.yaml"
	sleep 0.3
	if wait_for_growth "$work/answers"; then die "the connection lives on"; fi
	echo "$(wc -l <"$work/answers") answers came before, none after"
	kill "$talker" 2>/dev/null || true
	show gpuhost apply -f "$work/tenants.yaml"

	say "kill -9 of the agent: no tenant notices"
	before=$(pids)
	kill -9 "$agent"
	wait "$agent" 2>/dev/null || true
	log=$(find "$root" -path '*logs*' -type f -size +0 | xargs -r grep -l 'a is up' | head -n 1)
	wait_for_growth "$log" || die "a's log stood still while the agent was dead"
	echo "while no agent runs, a's log goes on, its own DNS queries included:"
	tail -n 2 "$log"
	outside bash -c 'exec 3<>/dev/tcp/198.51.100.1/7000; echo "hello again" >&3; IFS= read -r -t 5 answer <&3; echo "b answers: $answer"'
	start_agent
	[ "$before" = "$(pids)" ] || die "a tenant was restarted"
	echo "the same tasks as before, pids: $(echo "$before" | tr '\n' ' ')"
	show gpuhost logs --tail 2 acme/a
	show gpuhost exec globex/b -- echo "exec works again"
	show gpuhost audit

	say "Metrics"
	exec 3<>/dev/tcp/127.0.0.1/9877
	printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
	metrics=$(tr -d '\r' <&3)
	exec 3<&-
	printf '\033[1m$ curl -s 127.0.0.1:9877/metrics | grep …\033[0m\n'
	grep -aE '^gpuhost_(build_info|servers\{)' <<<"$metrics"
	grep -aE '^gpuhost_gpu_state.*server="[ab]".* 1$' <<<"$metrics"
	grep -aE '^gpuhost_network_bytes_total.* [1-9]' <<<"$metrics" || die "no traffic was metered"
	grep -aE '^DCGM_FI_DEV_GPU_TEMP.*container="[ab]"' <<<"$metrics"
}

remove_everything() {
	say "Remove everything"
	show gpuhost delete --yes -f "$work/tenants.yaml"
	show gpuhost gpu list
	kill -TERM "$agent"
	wait "$agent" 2>/dev/null || true
	show gpuhost agent --remove --root "$root" --config "$top/build/gpuhost.toml"
	rm -rf "$root/etc" "$root/var"
	left=$(
		leftovers
		ip netns list | grep -v '^outside' || true
		ip -br link | awk '{print $1}' | grep -v -e '^lo$' -e '^uplink0' || true
		nft list tables
		grep -lx 1 /proc/sys/net/ipv4/conf/uplink0/forwarding || true
		ls -A "$root" | sed 's/^/file /'
	)
	[ -z "$left" ] || die "left behind: $left"
}

explain() {
	cat <<-EOF

	The demo keeps running. In another terminal, as root:

	  nsenter -t $(cat "$work/pid") -m -n env GPUHOST_HOST=$GPUHOST_HOST PATH=$bin:\$PATH bash
	  gpuhost get instances; gpuhost exec -it acme/a -- sh; gpuhost events -f

	To end it: Ctrl-C here, or kill -9 $(cat "$work/pid").
	EOF
}

main() {
	enter_namespaces "$@"
	cd "$here"
	export GPUHOST_HOST=unix://$root/run/gpuhost.sock
	prepare_machine
	"$top/build/bin/mkimage" -o "$work/image.tar"
	start_agent
	tour
	if [ -n "$keep" ]; then
		explain
		wait "$agent" || true
		return
	fi
	remove_everything
}

main "$@"
