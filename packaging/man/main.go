// Command man writes gpuhost's manual pages, one for each command, from the
// same tree that the program runs. SOURCE_DATE_EPOCH gives their date.
//
//	man -out build/man
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"

	"github.com/gpuhost/gpuhost/agent/cli"
)

func main() {
	out := flag.String("out", "build/man", "folder to write to")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func write(out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make folder for manual pages: %w", err)
	}
	tree := cli.Tree()
	tree.InitDefaultCompletionCmd() // cobra adds it only when it runs
	tree.DisableAutoGenTag = true   // it would name the day of the build
	header := &doc.GenManHeader{Title: "GPUHOST", Section: "8", Source: "gpuhost", Manual: "gpuhost"}
	if err := doc.GenManTree(tree, header, out); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	return nil
}
