package sim

import (
	"fmt"
	"os"
	"path/filepath"
)

// DeviceNode is one character device a driver of this host would make.
type DeviceNode struct {
	Name         string // below /dev
	Major, Minor uint32
}

// The numbers of NVIDIA's nodes. nvidia-uvm has no fixed major; what is chosen
// here is free on stock kernels.
const (
	majorNVIDIA  = 195
	minorControl = 255
	MajorUVM     = 511
)

// DeviceNodes lists the nodes: one a GPU, nvidiactl and nvidia-uvm. Without a
// driver behind them opening one that is granted gives ENXIO, one that a device
// program refuses EPERM.
func (s Scenario) DeviceNodes() []DeviceNode {
	nodes := []DeviceNode{
		{Name: "nvidiactl", Major: majorNVIDIA, Minor: minorControl},
		{Name: "nvidia-uvm", Major: MajorUVM, Minor: 0},
	}
	for i := range s.Slots {
		nodes = append(nodes, DeviceNode{Name: fmt.Sprintf("nvidia%d", i), Major: majorNVIDIA, Minor: uint32(i)})
	}
	return nodes
}

// WriteDriverTree fills dir with the stand-in for what a driver brings into an
// instance: bin/nvidia-smi, and the libraries' names with relative links. It may
// be repeated; dir is then as after the first time.
func WriteDriverTree(dir string, s Scenario) error {
	for _, sub := range []string{"bin", "lib64"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return fmt.Errorf("write driver tree: %w", err)
		}
	}
	smi := fmt.Sprintf(smiScript, s.DriverVersion, s.CUDAVersion, s.Model)
	if err := replace(filepath.Join(dir, "bin", "nvidia-smi"), smi, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"libcuda.so", "libnvidia-ml.so"} {
		if err := writeLibrary(filepath.Join(dir, "lib64"), name, s.DriverVersion); err != nil {
			return err
		}
	}
	return nil
}

// writeLibrary makes name.<version>, and name.1 and name as links to it.
func writeLibrary(dir, name, version string) error {
	real := name + "." + version
	marker := "stand-in of a simulated host for " + real + "\n"
	if err := replace(filepath.Join(dir, real), marker, 0o644); err != nil {
		return err
	}
	for link, target := range map[string]string{name + ".1": real, name: name + ".1"} {
		path := filepath.Join(dir, link)
		if have, err := os.Readlink(path); err == nil && have == target {
			continue
		}
		_ = os.Remove(path)
		if err := os.Symlink(target, path); err != nil {
			return fmt.Errorf("write driver tree: %w", err)
		}
	}
	return nil
}

func replace(path, text string, mode os.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && string(have) == text {
		return os.Chmod(path, mode)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return fmt.Errorf("write driver tree: %w", err)
	}
	return os.Chmod(path, mode) // whatever the umask
}

// smiScript runs in the instance, with whatever shell the image has, and shows
// what the instance could really open: a refused node says so.
const smiScript = `#!/bin/sh
# Stand-in of a simulated host.
echo "NVIDIA-SMI %[1]s (simulated)   Driver Version: %[1]s   CUDA Version: %[2]s"
count=0
for node in /dev/nvidia[0-9]*; do
	[ -e "$node" ] || continue
	why=$( { : < "$node"; } 2>&1 ) && why=
	case "$why" in
	'' | *[Nn]o\ such\ device*) echo "GPU ${node#/dev/nvidia}: %[3]s"; count=$((count + 1)) ;;
	*) echo "GPU ${node#/dev/nvidia}: refused" ;;
	esac
done
[ "$count" -gt 0 ] || { echo "No devices were found"; exit 6; }
`
