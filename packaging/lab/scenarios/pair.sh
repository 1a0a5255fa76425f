# Two tenants, two GPUs each; one answers the world.
#: needs install
#: timeout 4m

## they run
sed "s|@IMAGE@|$lab/busybox.tar|" $lab/scenarios/pair.yaml >/root/pair.yaml
gpuhost apply -f /root/pair.yaml
gpuhost get instances -o wide
answers
