# The power goes at one of the agent's steps: no GPU is assigned twice, all comes back.
#: needs install
#: timeout 5m
#: each POINT before drivers/reserve, after drivers/reserve, after isolation/make-cgroup, before isolation/create, after isolation/create, after network/attach, after drivers/assign, before isolation/start, after isolation/start, before drivers/drain, after drivers/scrub, before drivers/free

## an agent that will cut the power $POINT
eventually 120 gpuhost status
power_cut_at "$POINT"

## two tenants are to run, and to be gone again
sed -e "s|@IMAGE@|$lab/busybox.tar|" -e 's/restart: never/restart: always/' $lab/scenarios/pair.yaml >/root/pair.yaml
sync
gpuhost apply -f /root/pair.yaml
case $POINT in *drain | *scrub | *free) gpuhost rm --yes acme/a globex/b && sleep 60 ;; esac
host await-cut

## the agent is back, and what was asked for is so
eventually 180 gpuhost status
gpuhost apply -f /root/pair.yaml
gpuhost get instances -o wide
gpuhost audit
eventually 60 gpuhost plan -f /root/pair.yaml

## no GPU has two owners, and every other one is free
gpuhost gpu list
[ "$(gpuhost gpu list | grep -c 'Assigned.* acme/a ')" = 2 ]
[ "$(gpuhost gpu list | grep -c 'Assigned.* globex/b ')" = 2 ]
[ "$(gpuhost gpu list | grep -c ' Free ')" = 4 ]
clean
