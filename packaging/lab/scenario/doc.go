// Package scenario reads and runs the lab's scenarios: small shell files that say,
// step by step, what an operator types on a host and what must be true after it.
//
//	# A reboot: instances come back as their policy says.
//	#: needs install
//	#: timeout 3m
//
//	## one instance that always comes back, and one that does not
//	gpuhost run --name a --restart always …
//
//	## the host reboots
//	host reboot
//
//	## a is back
//	gpuhost get instance a -o json | grep Running
//
// A step begins at "## " and its name. Its lines are one bash script, run as root
// in the guest with lib.sh read before; the first line that fails fails it. Steps
// share nothing but files. A line "host …" at the end of a step is an order to the
// lab itself:
//
//	host reboot      reboots the machine in order
//	host cut         takes its power away, now
//	host await-cut   waits for the power cut that the step's lines have brought about, which may come in the middle of them
//
// after which it boots again from the same disk. Comments "#: " before the first
// step are settings:
//
//	#: needs NAME            that scenario runs before, on the same boot
//	#: timeout 3m            for each step, instead of two minutes
//	#: each POINT a, b, c    the whole scenario once for each, in $POINT
package scenario
