package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// legal matches the names of files that must go with copies of a module.
func legal(name string) bool {
	return regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|copyright|patents)([._-].*)?$`).MatchString(name)
}

// notices collects licences and notices. A module without any is an error: nobody may
// hand it on.
func notices(modules []module) ([]byte, error) {
	dirs, err := cached(modules)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, m := range modules {
		found, err := legalFiles(dirs[m.path+"@"+m.version])
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("collect notices: %s %s has no licence", m.path, m.version)
		}
		for _, file := range found {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("collect notices: %w", err)
			}
			fmt.Fprintf(&out, "==== %s %s: %s\n\n%s\n\n", m.path, m.version, filepath.Base(file), bytes.TrimSpace(text))
		}
	}
	return out.Bytes(), nil
}

// cached asks the go command where each module lies.
func cached(modules []module) (map[string]string, error) {
	dirs := make(map[string]string)
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find Go's own library: %w", err)
	}
	args := []string{"mod", "download", "-json"}
	for _, m := range modules {
		if m.path == "std" {
			dirs[m.path+"@"+m.version] = string(bytes.TrimSpace(root))
			continue
		}
		args = append(args, m.path+"@"+m.version)
	}
	output, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("find modules in the cache: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(output))
	for {
		var m struct{ Path, Version, Dir string }
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return dirs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read what go mod download says: %w", err)
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
}

// legalFiles are those of the module's root.
func legalFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("collect notices: %w", err)
	}
	var files []string
	for _, e := range entries {
		if e.Type().IsRegular() && legal(e.Name()) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}
