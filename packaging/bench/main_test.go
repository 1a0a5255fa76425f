package bench_test

import (
	"os"
	"testing"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// amounts is how much is measured.
type amounts struct {
	starts    int // P1, of each
	crowd     int // P2: instances at once
	converged int // P7: running instances
	restarted int // P8: running instances
	hostFull  int // P10: running instances
	rules     int // P3, P10: entries loaded
}

// amountsOf reads GPUHOST_BENCH: short, full (the promise's own numbers), or
// nothing for what a small machine does in minutes.
func amountsOf() amounts {
	switch os.Getenv("GPUHOST_BENCH") {
	case "short":
		return amounts{starts: 10, crowd: 8, converged: 8, restarted: 8, hostFull: 8, rules: 10_000}
	case "full":
		return amounts{starts: 50, crowd: 100, converged: 50, restarted: 100, hostFull: 500, rules: 100_000}
	default:
		return amounts{starts: 50, crowd: 20, converged: 20, restarted: 20, hostFull: 100, rules: 100_000}
	}
}
