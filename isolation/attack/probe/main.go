// Command probe runs the table of isolation/attack inside an instance and prints
// for each case its number and what the kernel answered. Each runs in a process
// of its own: what one of them does to itself does not show in the next.
//
//	probe                all cases
//	probe case 17        one
//	probe open PATH...   opens files for reading and writing
//	probe watch PATH     opens it until that is refused with EPERM, and prints
//	                     when it was, in nanoseconds since 1970
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/gpuhost/gpuhost/isolation/attack"
	"golang.org/x/sys/unix"
)

func main() {
	inherited := attack.Inherited()
	switch {
	case len(os.Args) == 3 && os.Args[1] == "case":
		number, err := strconv.Atoi(os.Args[2])
		if err != nil || number >= len(attack.Cases()) {
			os.Exit(2)
		}
		fmt.Println(attack.Answer(attack.Cases()[number].Try()))
	case len(os.Args) > 2 && os.Args[1] == "open":
		for _, path := range os.Args[2:] {
			_, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			fmt.Println(attack.Answer(err))
		}
	case len(os.Args) == 3 && os.Args[1] == "watch":
		watch(os.Args[2])
	default:
		all(inherited)
	}
}

func watch(path string) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if errors.Is(err, unix.EPERM) {
			fmt.Println(time.Now().UnixNano())
			return
		}
		if err == nil {
			unix.Close(fd)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func all(inherited error) {
	fmt.Printf("inherited\t%s\n", attack.Answer(inherited))
	for i, c := range attack.Cases() {
		out, err := exec.Command("/proc/self/exe", "case", strconv.Itoa(i)).Output()
		answer := string(out)
		if err != nil {
			answer = err.Error() + "\n"
		}
		fmt.Printf("%s\t%s", c.Name, answer)
	}
}
