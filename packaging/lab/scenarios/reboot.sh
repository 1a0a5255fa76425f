# A reboot: instances come back as their policy says, and every GPU is proved first.
#: needs install pair
#: timeout 5m

## the host reboots
host reboot

## the agent is ready
eventually 60 systemctl is-active gpuhost
eventually 120 gpuhost status

## b, which always restarts, is back and answers; a, which never does, is not
eventually 120 gpuhost wait --for=phase=Running --timeout 1s globex/b
answers
gpuhost get instances -o wide
[ "$(instance acme/a phase)" != Running ]
gpuhost audit globex/b

## b's GPUs went through hand-over before it got GPUs again
gpuhost events | tee /root/events | grep -i 'hand-over\|drain\|scrub\|Free' | tail -n 20
gpuhost gpu list
