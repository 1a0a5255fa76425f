package oci

import (
	"maps"
	"slices"
	"strings"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the image's without NVIDIA_*, then the lease's, then ours:
// search paths begin with the driver tree and no library is told of devices.
// A container's first entry of a name would win in some programs and the last
// in others, so each name is there once, in sorted order.
func environment(in Input) ([]string, error) {
	env := map[string]string{"PATH": defaultPath}
	for _, entry := range in.Image.Env {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "NVIDIA_") {
			continue
		}
		env[name] = value
	}
	maps.Copy(env, in.Env)
	if in.Paths.DriverTree != "" {
		env["PATH"] = prefixed(driverTarget+"/bin", env["PATH"])
		env["LD_LIBRARY_PATH"] = prefixed(driverTarget+"/lib64", env["LD_LIBRARY_PATH"])
	}
	env["NVIDIA_VISIBLE_DEVICES"] = "void"

	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(env[name], 0) {
			return nil, refuse("environment variable %.80q is not a name and value without NUL bytes", name)
		}
		list = append(list, name+"="+env[name])
	}
	return list, nil
}

func prefixed(dir, list string) string {
	if list == "" {
		return dir
	}
	return dir + ":" + list
}
