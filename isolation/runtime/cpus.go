package runtime

import (
	"os"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// possibleCPUs is how many processors the kernel may ever number, those that are off
// and those this process may not run on included: each has folders in /sys.
func possibleCPUs() (int, error) {
	const file = "/sys/devices/system/cpu/possible"
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, ok := cpusIn(string(text))
	if !ok {
		return 0, fault.New(fault.Internal, "read "+file, "%.100q is no list of processors", text)
	}
	return n, nil
}

// cpusIn is one more than the last number of a list in the kernel's form: "0-3,8-11".
func cpusIn(list string) (int, bool) {
	list = strings.TrimSpace(list)
	last, err := strconv.ParseUint(list[strings.LastIndexAny(list, ",-")+1:], 10, 16)
	return int(last) + 1, err == nil
}
