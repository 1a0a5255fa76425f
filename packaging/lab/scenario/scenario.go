package scenario

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// defaultTimeout of a step: emulation is slow, and the machine has other work.
const defaultTimeout = 2 * time.Minute

// Scenario is one file.
type Scenario struct {
	Name    string // the file's, without ".sh"
	About   string // its first comment
	Needs   []string
	Timeout time.Duration
	Each    Each
	Steps   []Step
}

// Each is a variable and the values it takes, one run after another.
type Each struct {
	Variable string
	Values   []string
}

// Step is one step.
type Step struct {
	Name  string
	Line  int // of the first line of its script
	Lines []string
	Order Order // what the lab does after them
}

// Order is something that only the lab can do.
type Order string

// The orders.
const (
	NoOrder  Order = ""
	Reboot   Order = "reboot"
	Cut      Order = "cut"
	AwaitCut Order = "await-cut"
)

// Load reads every scenario of a folder, but lib.sh.
func Load(dir string) ([]*Scenario, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.sh"))
	if err != nil {
		return nil, err
	}
	var all []*Scenario
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".sh")
		if name == "lib" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		s, err := Parse(name, string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// Parse reads one scenario. Errors name the line.
func Parse(name, text string) (*Scenario, error) {
	s := &Scenario{Name: name, Timeout: defaultTimeout}
	for i, line := range strings.Split(text, "\n") {
		if err := s.add(i+1, line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if s.About == "" {
		return nil, errors.New("the first line is no comment that says what it shows")
	}
	if len(s.Steps) == 0 {
		return nil, errors.New("no step: a line that begins with \"## \"")
	}
	return s, nil
}

func (s *Scenario) add(number int, line string) error {
	if title, ok := strings.CutPrefix(line, "## "); ok {
		s.Steps = append(s.Steps, Step{Name: title, Line: number + 1})
		return nil
	}
	if len(s.Steps) == 0 {
		return s.addHead(line)
	}
	step := &s.Steps[len(s.Steps)-1]
	switch order, ok := strings.CutPrefix(line, "host "); {
	case ok:
		return step.order(Order(strings.TrimSpace(order)))
	case step.Order != NoOrder && strings.TrimSpace(line) != "":
		return fmt.Errorf("%q comes after \"host %s\", which ends a step", line, step.Order)
	}
	step.Lines = append(step.Lines, line)
	return nil
}

func (s *Step) order(o Order) error {
	if !slices.Contains([]Order{Reboot, Cut, AwaitCut}, o) {
		return fmt.Errorf("unknown order %q: reboot, cut or await-cut", o)
	}
	if s.Order != NoOrder {
		return fmt.Errorf("a second order, %q, in one step", o)
	}
	s.Order = o
	return nil
}

// addHead reads a line before the first step.
func (s *Scenario) addHead(line string) error {
	setting, ok := strings.CutPrefix(line, "#: ")
	switch comment, isComment := strings.CutPrefix(line, "# "); {
	case ok:
		return s.set(setting)
	case isComment && s.About == "":
		s.About = comment
	case line != "" && !strings.HasPrefix(line, "#"):
		return fmt.Errorf("%q stands before the first step", line)
	}
	return nil
}

func (s *Scenario) set(setting string) (err error) {
	key, value, _ := strings.Cut(setting, " ")
	switch key {
	case "needs":
		s.Needs = strings.Fields(value)
	case "timeout":
		s.Timeout, err = time.ParseDuration(value)
	case "each":
		variable, values, _ := strings.Cut(value, " ")
		s.Each.Variable = variable
		for _, v := range strings.Split(values, ",") {
			s.Each.Values = append(s.Each.Values, strings.TrimSpace(v))
		}
	default:
		return fmt.Errorf("unknown setting %q: needs, timeout or each", key)
	}
	return err
}

// Script is the step's script after a prelude of one line. Its lines keep their
// numbers in the file, so that bash names the one that failed.
func (s *Step) Script(prelude string) string {
	return prelude + strings.Repeat("\n", s.Line-1) + strings.Join(s.Lines, "\n") + "\n"
}

// Select returns the named scenarios, or all, each after what it needs.
func Select(all []*Scenario, names []string) ([]*Scenario, error) {
	if len(names) == 0 {
		for _, s := range all {
			names = append(names, s.Name)
		}
	}
	p := picker{all: all}
	for _, name := range names {
		if err := p.pick(name, nil); err != nil {
			return nil, err
		}
	}
	return p.picked, nil
}

// picker orders scenarios by what they need.
type picker struct {
	all, picked []*Scenario
}

func (p *picker) pick(name string, asking []string) error {
	isNamed := func(s *Scenario) bool { return s.Name == name }
	if slices.ContainsFunc(p.picked, isNamed) {
		return nil
	}
	if slices.Contains(asking, name) {
		return fmt.Errorf("scenario %s needs itself: %s", name, strings.Join(asking, " needs "))
	}
	i := slices.IndexFunc(p.all, isNamed)
	if i < 0 {
		return fmt.Errorf("no scenario %q", name)
	}
	for _, need := range p.all[i].Needs {
		if err := p.pick(need, append(asking, name)); err != nil {
			return err
		}
	}
	p.picked = append(p.picked, p.all[i])
	return nil
}
