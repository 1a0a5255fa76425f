# A host: Debian with systemd, and cgroup v2 with every controller.

## the system is up, and no unit has failed
systemctl is-system-running --wait || { systemctl --failed; exit 1; }

## every controller is there
read -ra have </sys/fs/cgroup/cgroup.controllers
for controller in cpuset cpu io memory hugetlb pids rdma misc; do
	[[ " ${have[*]} " == *" $controller "* ]] || fail "no $controller among: ${have[*]}"
done

## the machine at the other end of the cable answers
outside nc -l -p 7 -N <<<hello &
eventually 5 bash -c 'nc -w 2 198.51.100.2 7 </dev/null | grep hello'
