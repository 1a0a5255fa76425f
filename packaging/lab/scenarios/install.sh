# The packages are installed with apt, and the service is ready.
#: timeout 6m

## a host without GPUs pretends to have them
install -d /etc/systemd/system/gpuhost.service.d
printf '[Service]\nExecStart=\nExecStart=/usr/bin/gpuhost agent --sim dgx-h100\n' >/etc/systemd/system/gpuhost.service.d/simulate.conf

## apt installs them
apt-get install -qq -y -o Dpkg::Use-Pty=0 $lab/packages/*.deb

## the service is ready
systemctl is-active gpuhost gpuhost-containerd gpuhost-tenants
systemctl is-enabled gpuhost gpuhost-containerd
eventually 120 gpuhost status
systemctl show gpuhost -p StatusText -p ActiveEnterTimestampMonotonic -p ExecMainStartTimestampMonotonic
gpuhost doctor || true
