package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Options say where settings come from.
type Options struct {
	Root    string            // "" is the real host
	File    string            // the main file; "" is the usual one, which may be absent
	Environ []string          // "NAME=value", as os.Environ gives it
	Flags   map[string]string // key, value: the strongest
}

// Setting is one setting in force, for a person to read.
type Setting struct {
	Key    string
	Value  string // as TOML
	Origin string // "default", "FILE:LINE", "environment NAME" or "flag"
	Doc    string
}

// maxFile bounds a file of settings; a real one has a few hundred bytes.
const maxFile = 1 << 20

// Load reads all layers. An error names file, line and column, or the variable
// or flag, and the nearest known name; nothing of a bad layer is in force.
func Load(o Options) (*Config, error) {
	c := Default()
	c.origins = map[string]string{}
	files, err := o.files()
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if err := c.loadFile(file); err != nil {
			return nil, err
		}
	}
	if err := c.loadEnviron(o.Environ); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(o.Flags)) {
		if err := c.assign("flag", key, o.Flags[key]); err != nil {
			return nil, err
		}
	}
	if key, err := c.check(); err != nil {
		return nil, fault.New(fault.Invalid, c.origin(key), "%s: %w", key, err)
	}
	return c, nil
}

// Settings lists every setting with its origin, in the order of the table.
func (c *Config) Settings() []Setting {
	var all []Setting
	for _, s := range table(c) {
		all = append(all, Setting{Key: s.key, Value: s.value.String(), Origin: c.origin(s.key), Doc: s.doc})
	}
	return all
}

func (c *Config) origin(key string) string {
	if origin, set := c.origins[key]; set {
		return origin
	}
	return "default"
}

// files are the drop-ins, weakest first, and then the main file. As with
// systemd, a drop-in replaces the one of the same name in a weaker folder.
func (o Options) files() ([]string, error) {
	paths := PathsBelow(o.Root)
	byName := map[string]int{}
	var files []string
	for _, dir := range []string{
		filepath.Join(o.Root, "/usr/lib/gpuhost"), paths.Run, paths.Etc,
	} {
		dir = filepath.Join(dir, "gpuhost.toml.d")
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Wrap(fault.Internal, "find settings", err)
		}
		for _, entry := range entries {
			if filepath.Ext(entry.Name()) != ".toml" {
				continue
			}
			if weaker, there := byName[entry.Name()]; there {
				files[weaker] = ""
			}
			byName[entry.Name()] = len(files)
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	main := o.File
	if main == "" {
		main = filepath.Join(paths.Etc, "gpuhost.toml")
		if _, err := os.Stat(main); errors.Is(err, fs.ErrNotExist) {
			main = ""
		}
	}
	return slices.DeleteFunc(append(files, main), func(file string) bool { return file == "" }), nil
}

func (c *Config) loadFile(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "read settings", "there is no file %s", file)
	case err != nil:
		return fault.Wrap(fault.Internal, "read settings", err)
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return fault.New(fault.Invalid, file, "is not a regular file of at most %s", spec.Bytes(maxFile))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fault.Wrap(fault.Internal, "read settings", err)
	}
	return c.parse(file, text)
}

// loadEnviron takes the variables of the table; others with our prefix belong to
// the command line.
func (c *Config) loadEnviron(environ []string) error {
	for _, s := range table(c) {
		for _, entry := range environ {
			if text, is := strings.CutPrefix(entry, s.variable()+"="); is {
				if err := c.assign("environment "+s.variable(), s.key, text); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// assign sets one value from outside a file.
func (c *Config) assign(origin, key, text string) error {
	s, known := find(table(c), key)
	if !known {
		return unknown(origin, key, keys(c))
	}
	if err := s.value.set(raw{kind: rawPlain, text: text}); err != nil {
		return fault.New(fault.Invalid, origin, "%s: %w", key, err)
	}
	c.origins[key] = origin
	return nil
}

func unknown(origin, key string, known []string) error {
	why := fmt.Sprintf("unknown setting %q", key)
	if near := nearest(key, known); near != "" {
		why += fmt.Sprintf(", the nearest is %q", near)
	}
	return fault.New(fault.Invalid, origin, "%s", why).WithHint("gpuhost config defaults lists all settings")
}

// nearest also finds a right name in a wrong section.
func nearest(key string, known []string) string {
	if near := spec.Nearest(key, known); near != "" {
		return near
	}
	name := key[strings.LastIndexByte(key, '.')+1:]
	i := slices.IndexFunc(known, func(k string) bool { return strings.HasSuffix(k, "."+name) })
	if i < 0 {
		return ""
	}
	return known[i]
}

// DefaultText is the default file: every setting with what it means, commented out.
func DefaultText() string {
	var b strings.Builder
	b.WriteString("# Settings of the gpuhost agent. What is commented out shows the default.\n" +
		"# gpuhost config show --origin says what is in force and why.\n")
	section := ""
	for _, s := range table(Default()) {
		if s.section() != section {
			section = s.section()
			fmt.Fprintf(&b, "\n[%s]\n", section)
		}
		fmt.Fprintf(&b, "# %s\n#%s = %s\n", strings.ReplaceAll(s.doc, "\n", "\n# "), s.name(), s.value)
	}
	return b.String()
}
