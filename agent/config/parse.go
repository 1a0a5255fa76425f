package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// parse reads one file over what is in force. The library checks the whole text
// first; its tree is then walked by hand, because only the tree knows the place
// of every key.
func (c *Config) parse(file string, text []byte) error {
	var whole map[string]any
	if err := toml.Unmarshal(text, &whole); err != nil {
		return syntax(file, err)
	}
	w := &walk{config: c, file: file, settings: table(c)}
	w.parser.Reset(text)
	for w.parser.NextExpression() {
		if err := w.expression(w.parser.Expression()); err != nil {
			return err
		}
	}
	return syntax(file, w.parser.Error())
}

func syntax(file string, err error) error {
	if err == nil {
		return nil
	}
	line, column := 1, 1
	var known *toml.DecodeError
	if errors.As(err, &known) {
		line, column = known.Position()
	}
	return fault.New(fault.Invalid, fmt.Sprintf("%s:%d:%d", file, line, column), "syntax: %s",
		strings.TrimPrefix(err.Error(), "toml: "))
}

// walk goes through the expressions of one file.
type walk struct {
	config   *Config
	file     string
	parser   unstable.Parser
	settings []setting
	section  []string
	pairs    map[string]raw // tables that are spread over several lines, by key
}

func (w *walk) expression(e *unstable.Node) error {
	names, at := w.key(e)
	switch e.Kind {
	case unstable.Table:
		w.section = names
		return w.known(at, names)
	case unstable.ArrayTable:
		return fault.New(fault.Invalid, at, "[[%s]]: settings have no lists of tables", strings.Join(names, "."))
	case unstable.KeyValue:
		return w.assign(at, slices.Concat(w.section, names), e.Value())
	}
	return nil
}

// key gives the parts of an expression's key and the place of the first.
func (w *walk) key(e *unstable.Node) (names []string, at string) {
	for it := e.Key(); it.Next(); {
		if at == "" {
			start := w.parser.Shape(it.Node().Raw).Start
			at = fmt.Sprintf("%s:%d:%d", w.file, start.Line, start.Column)
		}
		names = append(names, string(it.Node().Data))
	}
	return names, at
}

// known refuses a table that can hold no setting.
func (w *walk) known(at string, names []string) error {
	table := strings.Join(names, ".")
	for _, s := range w.settings {
		if strings.HasPrefix(s.key, table+".") || s.key == table {
			return nil
		}
	}
	sections := make([]string, len(w.settings))
	for i, s := range w.settings {
		sections[i] = s.section()
	}
	return unknown(at, table, slices.Compact(sections))
}

// assign sets the value of a key. A key one longer than a setting is an entry of
// that setting's table: [tenants.uids] on a line of its own.
func (w *walk) assign(at string, names []string, node *unstable.Node) error {
	key := strings.Join(names, ".")
	r := rawOf(node)
	s, known := find(w.settings, key)
	if !known && len(names) > 1 {
		parent := strings.Join(names[:len(names)-1], ".")
		if s, known = find(w.settings, parent); known {
			if _, is := s.value.(*mapping); is && r.kind == rawText {
				r = w.gather(parent, names[len(names)-1], r.text)
			} else {
				known = false
			}
		}
	}
	if !known {
		return w.unknownOrTable(at, key, node)
	}
	if err := s.value.set(r); err != nil {
		return fault.New(fault.Invalid, at, "%s: %w", s.key, err)
	}
	place, _, _ := cutLast(at, ':')
	w.config.origins[s.key] = place
	return nil
}

// gather collects the entries of a table within one file.
func (w *walk) gather(key, name, value string) raw {
	if w.pairs == nil {
		w.pairs = map[string]raw{}
	}
	r, there := w.pairs[key]
	if !there {
		r = raw{kind: rawTable, pairs: map[string]string{}}
	}
	r.pairs[name] = value
	w.pairs[key] = r
	return raw{kind: rawTable, pairs: r.pairs}
}

// unknownOrTable opens metrics = {listen = "…"}, and refuses the rest.
func (w *walk) unknownOrTable(at, key string, node *unstable.Node) error {
	if node.Kind != unstable.InlineTable || w.known(at, strings.Split(key, ".")) != nil {
		return unknown(at, key, keys(w.config))
	}
	for it := node.Children(); it.Next(); {
		names, inner := w.key(it.Node())
		if err := w.assign(inner, slices.Concat(strings.Split(key, "."), names), it.Node().Value()); err != nil {
			return err
		}
	}
	return nil
}

func rawOf(node *unstable.Node) raw {
	switch node.Kind {
	case unstable.String:
		return raw{kind: rawText, text: string(node.Data)}
	case unstable.Integer, unstable.Float:
		return raw{kind: rawNumber, text: string(node.Data)}
	case unstable.Bool:
		return raw{kind: rawBool, text: string(node.Data)}
	case unstable.Array:
		r := raw{kind: rawList}
		for it := node.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			if it.Node().Kind != unstable.String {
				return raw{kind: "a list with something other than texts"}
			}
			r.list = append(r.list, string(it.Node().Data))
		}
		return r
	case unstable.InlineTable:
		r := raw{kind: rawTable, pairs: map[string]string{}}
		for it := node.Children(); it.Next(); {
			entry := it.Node()
			if entry.Value().Kind != unstable.String {
				return raw{kind: "a table with something other than texts"}
			}
			var names []string
			for k := entry.Key(); k.Next(); {
				names = append(names, string(k.Node().Data))
			}
			r.pairs[strings.Join(names, ".")] = string(entry.Value().Data)
		}
		return r
	}
	return raw{kind: rawOther}
}

// cutLast splits at the last sep: a file's column is no part of an origin.
func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
