# The agent and containerd may die and systemd may reload: no tenant notices, no packet is lost.
#: needs install pair
#: timeout 4m

## a connection is open from the world to b, and counts every answer
both() { process acme/a; process globex/b; }
both >/root/both
outside bash -c 'exec 3<>/dev/tcp/198.51.100.1/7000
	n=0; while n=$((n + 1)); echo "$n" >&3 && IFS= read -r -t 60 answer <&3 && [ "$answer" = "$n" ]; do echo "$n"; sleep 0.1; done
	echo broken' >/root/counted 2>&1 &
eventually 20 test -s /root/counted

## kill -9 of the agent
agent=$(systemctl show gpuhost -p MainPID --value)
kill -9 "$agent"
counted_on
eventually 120 gpuhost status
undisturbed

## kill -9 of containerd
pkill -9 -x containerd
counted_on
eventually 120 gpuhost status
undisturbed

## daemon-reload
systemctl daemon-reload
counted_on
undisturbed
# No driver stands behind a simulated GPU: this is the open that was let through.
gpuhost exec acme/a -- sh -c 'true < $(ls -d /dev/nvidia[0-9]* | head -n 1)' >/root/opened 2>&1 || true
cat /root/opened
grep 'No such device or address' /root/opened

## both at once
pkill -9 -x containerd
kill -9 "$(systemctl show gpuhost -p MainPID --value)"
counted_on
eventually 120 gpuhost status
undisturbed

## every control passes, and nothing is to be done
gpuhost audit
gpuhost plan -f /root/pair.yaml
