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

## every GPU was proved clean in this boot before anybody got one
journalctl -b -u gpuhost -o cat --no-pager | grep -o 'verb=\(free\|assign\) object=[^ ]*' | tee /root/verbs
[ "$(grep -c verb=free /root/verbs)" = 8 ]
gpuhost gpu list
