// Command bom says what a package's programs are made of, from what the linker
// wrote into them: a CycloneDX bill of materials, and the licences and notices of
// every module, from the module cache.
//
//	bom -name gpuhost -version 0.1.0 -out DIR [-c libseccomp=2.5.4] PROGRAM...
//
// The same programs give the same bytes: no serial number, no time of the build.
package main

import (
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// module is one thing that is linked in.
type module struct {
	path, version, sum string
	c                  bool // a C library, linked statically
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var libraries []module
	flags := flag.NewFlagSet("bom", flag.ExitOnError)
	name := flags.String("name", "", "the package's `name`")
	version := flags.String("version", "", "the package's `version`")
	out := flags.String("out", ".", "`folder` to write to")
	flags.Func("c", "a C library linked in, `name=version`, repeated", func(s string) error {
		path, version, found := strings.Cut(s, "=")
		if !found {
			return fmt.Errorf("%q is no name=version", s)
		}
		libraries = append(libraries, module{path: path, version: version, c: true})
		return nil
	})
	_ = flags.Parse(args) // ExitOnError
	modules, err := linked(flags.Args())
	if err != nil {
		return err
	}
	text, err := bill(*name, *version, append(modules, libraries...))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(*out, "sbom.cdx.json"), text, 0o644); err != nil {
		return fmt.Errorf("write bill of materials: %w", err)
	}
	notices, err := notices(modules)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(*out, "third-party-notices"), notices, 0o644); err != nil {
		return fmt.Errorf("write notices: %w", err)
	}
	return nil
}

// linked lists the modules of all programs once, sorted, with Go's own library.
func linked(programs []string) ([]module, error) {
	var all []module
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, fmt.Errorf("read modules of %s: %w", program, err)
		}
		all = append(all, module{path: "std", version: info.GoVersion})
		deps := info.Deps
		if !strings.HasPrefix(info.Main.Path, "github.com/gpuhost/") {
			deps = append(deps, &info.Main) // upstream's program, built from its module
		}
		for _, d := range deps {
			if d.Replace != nil {
				return nil, fmt.Errorf("%s: %s is replaced by %s: its bill would be of something else", program, d.Path, d.Replace.Path)
			}
			all = append(all, module{path: d.Path, version: d.Version, sum: d.Sum})
		}
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.path+"@"+a.version, b.path+"@"+b.version) })
	return slices.Compact(all), nil
}
