# The limits of an instance are the kernel's: its own processes feel them, nobody else's.
#: needs install
#: timeout 4m

## two tenants run; one of them is a bystander
gpuhost run --tenant acme --name steady --cpus 0.2 --memory 64MiB $image -- sleep 1000000
gpuhost run --tenant globex --name busy --cpus 0.2 --memory 64MiB --pids 50 --restart never $image -- sleep 1000000
process acme/steady >/root/steady

## cpu: two loops together get a fifth of a processor
gpuhost exec globex/busy -- sh -c 'while :; do :; done & while :; do :; done &'
group=$(cgroup globex/busy)
grep -x '20000 100000' "$group/cpu.max"
used() { awk '$1 == "usage_usec" {print $2}' "$group/cpu.stat"; }
before=$(used) begin=$(date +%s%6N)
sleep 5
share=$((($(used) - before) * 100 / ($(date +%s%6N) - begin)))
echo "they got $share % of a processor, and were throttled $(awk '$1 == "nr_throttled" {print $2}' "$group/cpu.stat") times"
((share <= 25))
grep -vx "$(instance globex/busy pid)" "$group/cgroup.procs" | xargs kill -9

## pids: the fifty-first process is refused
gpuhost exec globex/busy -- sh -c 'for i in $(seq 60); do sleep 300 & done' 2>&1 | tail -n 1 || true
cat "$(cgroup globex/busy)"/pids.{current,max,events}
(($(<"$(cgroup globex/busy)/pids.current") <= 50))
grep -v 'max 0' "$(cgroup globex/busy)/pids.events"
gpuhost exec acme/steady -- echo "the bystander's exec works"

## memory: what takes too much is killed as a whole, and says why
gpuhost run --tenant globex --name greedy --cpus 0.2 --memory 64MiB --restart never $image -- sh -c 'sleep 1000 & tail /dev/zero'
eventually 60 gpuhost wait --for=phase=Failed --timeout 1s globex/greedy
gpuhost describe instance globex/greedy | tee /root/greedy
grep -i 'out of memory' /root/greedy

## nobody else noticed
[ "$(process acme/steady)" = "$(</root/steady)" ]
[ "$(instance acme/steady restarts)" = 0 ]
[ "$(systemctl show gpuhost -p NRestarts --value)" = 0 ]
gpuhost audit acme/steady

## an instance that may restart comes back after it ran out of memory
gpuhost run --tenant globex --name again --cpus 0.2 --memory 64MiB --restart on-failure --no-wait $image -- sh -c '[ -e /tried ] && exec sleep 1000000; touch /tried; tail /dev/zero'
again() { [ "$(instance globex/again restarts)" = 1 ] && [ "$(instance globex/again phase)" = Running ]; }
eventually 90 again

## everything is removed
clean
