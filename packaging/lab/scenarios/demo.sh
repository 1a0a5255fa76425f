# Two tenants who do not trust each other, two GPUs each, with every limit enforced.
#: needs install
#: timeout 4m

## two tenants run
mkdir -p /root/demo
sed "s|oci-archive:@IMAGE@|$image|" $lab/demo/tenants.yaml >/root/demo/tenants.yaml
gpuhost plan -f /root/demo/tenants.yaml || [ $? = 3 ]
gpuhost apply -f /root/demo/tenants.yaml
gpuhost get instances -o wide
gpuhost gpu list

## every control, read back from the kernel, passes
gpuhost audit

## a sees its own two nodes and may open them, and cannot make b's
gpuhost exec acme/a -- ls -l /dev
mine=$(gpuhost exec acme/a -- sh -c 'cd /dev && ls -d nvidia[0-9]* | head -n 1' | tr -d '\r')
theirs=$(gpuhost exec globex/b -- sh -c 'cd /dev && ls -d nvidia[0-9]* | head -n 1' | tr -d '\r')
answer=$(gpuhost exec acme/a -- sh -c "true < /dev/$mine" 2>&1 || true)
[[ $answer == *"No such device or address"* ]] || fail "a may not open its own node: $answer"
refused gpuhost exec acme/a -- mknod /tmp/stolen c 195 "${theirs#nvidia}"

## a cannot reach b; the world reaches b's published port
refused gpuhost exec acme/a -- nc -w 2 10.0.1.20 7000
refused gpuhost exec acme/a -- nc -w 2 198.51.100.1 7000
outside bash -c 'exec 3<>/dev/tcp/198.51.100.1/7000; echo "hello b" >&3; IFS= read -r -t 5 answer <&3; [ "$answer" = "hello b" ]'

## a plan after it is empty, and verify reads the same from the kernel
gpuhost plan -f /root/demo/tenants.yaml
gpuhost verify -f /root/demo/tenants.yaml
