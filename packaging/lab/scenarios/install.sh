# The agent is copied onto the host and its service is ready.
#: timeout 4m

## it is copied
cp -r $lab/tree/usr/. /usr/
cp $lab/scenarios/hand/gpuhost.service /etc/systemd/system/
systemctl daemon-reload

## the service is ready
systemctl start gpuhost
eventually 120 gpuhost status
systemctl show gpuhost -p StatusText -p ExecMainPID

## doctor
gpuhost doctor || true
