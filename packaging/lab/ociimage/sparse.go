package ociimage

import (
	"archive/tar"
	"fmt"
	"strings"
)

// Sparse is a regular file that is one hole of the given size: a kilobyte of tar
// that asks for any amount of disk. It is written as GNU tar does (PAX format
// 0.1), which archive/tar reads and does not write.
func Sparse(name string, size int64) Layer {
	var records strings.Builder
	for _, r := range [][2]string{
		{"GNU.sparse.name", name}, {"GNU.sparse.size", fmt.Sprint(size)},
		{"GNU.sparse.numblocks", "1"}, {"GNU.sparse.map", fmt.Sprintf("%d,0", size)},
	} {
		records.WriteString(record(r[0], r[1]))
	}
	extended := File("extended", 0o644, records.String())
	extended.patch = func(header []byte) {
		header[typeflagOffset] = tar.TypeXHeader
		setChecksum(header)
	}
	return Layer{extended, File(name, 0o644, "")}
}

// record is one PAX record, which begins with its own length.
func record(key, value string) string {
	text := fmt.Sprintf(" %s=%s\n", key, value)
	length := len(text) + 2
	if length > 99 {
		length++
	}
	return fmt.Sprint(length) + text
}

// Places in a tar header.
const (
	checksumOffset = 148
	checksumEnd    = 156
	typeflagOffset = 156
	headerSize     = 512
)

func setChecksum(header []byte) {
	copy(header[checksumOffset:checksumEnd], "        ")
	var sum int
	for _, b := range header[:headerSize] {
		sum += int(b)
	}
	copy(header[checksumOffset:checksumEnd], fmt.Sprintf("%06o\x00 ", sum))
}
