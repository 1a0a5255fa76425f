package logfile

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The bounds of one instance's log.
const (
	SegmentSize = 16 << 20
	Segments    = 5
)

const suffix = ".log"

func segmentName(seq uint64) string {
	digits := strconv.FormatUint(seq, 10)
	return strings.Repeat("0", max(0, 8-len(digits))) + digits + suffix
}

// segments lists the numbers of the segments present, oldest first. Other files
// in the folder are none of ours.
func segments(root *os.Root) ([]uint64, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("open log folder: %w", err)
	}
	defer dir.Close()
	var found []uint64
	for {
		names, err := dir.Readdirnames(64)
		for _, name := range names {
			if seq, ok := parseName(name); ok {
				found = append(found, seq)
			}
		}
		if err == io.EOF {
			slices.Sort(found)
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list log folder: %w", err)
		}
	}
}

func parseName(name string) (seq uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 10, 64)
	return seq, err == nil && segmentName(seq) == name
}
