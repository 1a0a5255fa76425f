# Removal leaves the state, purge leaves nothing.
#: needs install
#: timeout 4m

## an instance runs
eventually 60 gpuhost status
gpuhost run --tenant acme --name last --gpus 1 --cpus 0.2 --memory 64MiB $image -- sleep 1000000

## the packages are removed: the tenant ends, its disk and the state stay
apt-get remove -qq -y -o Dpkg::Use-Pty=0 gpuhost gpuhost-runtime
test -s /var/lib/gpuhost/state.db
test -s /etc/gpuhost/gpuhost.toml
running

## installed again, the instance comes back
apt-get install -qq -y -o Dpkg::Use-Pty=0 $lab/packages/*.deb
eventually 120 gpuhost wait --for=phase=Running --timeout 1s acme/last

## they are purged: nothing is left
apt-get purge -qq -y -o Dpkg::Use-Pty=0 gpuhost gpuhost-runtime
running
rm -r /etc/systemd/system/gpuhost.service.d # ours
[ -z "$(find / -xdev -path $lab -prune -o -path /var/log -prune -o -path /var/cache/apt -prune -o -iname '*gpuhost*' -print | tee /dev/stderr)" ]
refused getent group gpuhost
systemctl list-units --all --no-legend 'gpuhost*' | tee /root/units
[ ! -s /root/units ]
