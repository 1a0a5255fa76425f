package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Both notations become yaml.Node trees, because a node knows its line and
// column. JSON has a reader of its own: it is not quite a subset of YAML 1.1
// (surrogate pairs in escapes), and the API speaks it all day.

// Bounds of a tree. Nesting is bounded before any recursion over it: the deepest
// resource needs ten. A node takes about forty times the shortest text it can be
// written as; a full document of the shortest rules has fewer.
const (
	maxDepth = 32
	maxNodes = 600_000
)

// errTooMany refuses a text that is right: no other notation is tried on it.
var errTooMany = fmt.Errorf("has more than %d values", maxNodes)

// parseNodes gives the root nodes of all documents in text.
func parseNodes(name string, text []byte) ([]*yaml.Node, error) {
	if !utf8.Valid(text) {
		line, column := positionOf(text, invalidOffset(text))
		return nil, positioned(name, line, column, "is not UTF-8")
	}
	if !startsJSON(text) {
		return parseYAML(name, text)
	}
	nodes, err := parseJSON(name, text)
	if err == nil || strings.HasSuffix(name, ".json") || errors.Is(err, errTooMany) {
		return nodes, err
	}
	if flow, yamlErr := parseYAML(name, text); yamlErr == nil {
		return flow, nil // YAML's own flow style: {kind: Tenant}
	}
	return nil, err
}

func startsJSON(text []byte) bool {
	trimmed := bytes.TrimSpace(text)
	return len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[')
}

func parseYAML(name string, text []byte) ([]*yaml.Node, error) {
	var roots []*yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return roots, nil
		case err != nil:
			return nil, yamlProblem(name, err)
		}
		if root := document.Content[0]; !isNull(root) {
			roots = append(roots, root)
		}
	}
}

// yamlProblem moves the library's "line N" to where every other error has it.
// The library knows no column for syntax errors, leaves the first line out, and
// counts lines from zero where its parser, not its scanner, was surprised.
func yamlProblem(name string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line, counted := 1, false
	if match := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); match != nil {
		line, _ = strconv.Atoi(match[1])
		text, counted = strings.TrimPrefix(text, match[0]), true
	}
	if counted && slices.Contains(parserSurprises(), text) {
		line++
	}
	return positioned(name, line, 1, "syntax: %s", text)
}

func parserSurprises() []string {
	return []string{
		"did not find expected node content", "did not find expected key", "did not find expected '-' indicator",
		"did not find expected ',' or ']'", "did not find expected ',' or '}'", "did not find expected <document start>",
	}
}

func positioned(name string, line, column int, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, fmt.Sprintf("%s:%d:%d", name, line, column), format, args...)
}

// invalidOffset finds the first byte that is not part of valid UTF-8.
func invalidOffset(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
	return len(text)
}

// positionOf counts lines and columns (in characters) from 1, as YAML does.
func positionOf(text []byte, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte{'\n'}) + 1, utf8.RuneCount(before[start:]) + 1
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// jsonReader builds nodes from JSON tokens.
type jsonReader struct {
	name    string
	text    []byte
	decoder *json.Decoder
	// line and column are those of the byte at seen. They follow the reading, so
	// that a place costs the distance from the last one and not from the start:
	// a whole request may be one line.
	line, column, seen int
	nodes              int
}

// parseJSON reads one or more JSON values that follow each other.
func parseJSON(name string, text []byte) ([]*yaml.Node, error) {
	r := &jsonReader{name: name, text: text, decoder: json.NewDecoder(bytes.NewReader(text)), line: 1, column: 1}
	r.decoder.UseNumber()
	var roots []*yaml.Node
	for {
		node, err := r.value(0)
		switch {
		case errors.Is(err, io.EOF):
			return roots, nil
		case err != nil:
			return nil, r.problem(err)
		}
		roots = append(roots, node)
	}
}

func (r *jsonReader) problem(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	offset := int(r.decoder.InputOffset())
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = max(offset, int(syntax.Offset)-1)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		offset = len(r.text)
	}
	line, column := positionOf(r.text, offset)
	return positioned(r.name, line, column, "syntax: %w", err)
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	node := r.node()
	token, err := r.decoder.Token()
	if err != nil {
		return nil, unexpectedEOF(err, depth)
	}
	if r.nodes++; r.nodes > maxNodes {
		return nil, positioned(r.name, node.Line, node.Column, "%w", errTooMany).WithHint("write the objects into several files")
	}
	switch token := token.(type) {
	case json.Delim:
		return r.collection(node, token, depth+1)
	case string:
		node.Tag, node.Value, node.Style = "!!str", token, yaml.DoubleQuotedStyle
	case json.Number:
		node.Tag, node.Value = "!!int", token.String()
		if strings.ContainsAny(node.Value, ".eE") {
			node.Tag = "!!float"
		}
	case bool:
		node.Tag, node.Value = "!!bool", strconv.FormatBool(token)
	default:
		node.Tag, node.Value = "!!null", "null"
	}
	return node, nil
}

func (r *jsonReader) collection(node *yaml.Node, opened json.Delim, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, positioned(r.name, node.Line, node.Column, "is nested more than %d deep", maxDepth)
	}
	node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
	if opened == '{' {
		node.Kind, node.Tag = yaml.MappingNode, "!!map"
	}
	for r.decoder.More() {
		child, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	_, err := r.decoder.Token()
	return node, unexpectedEOF(err, depth)
}

// unexpectedEOF tells the end inside a value from the end after the last one.
func unexpectedEOF(err error, depth int) error {
	if depth > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// node starts a scalar node at the place where the next token begins.
func (r *jsonReader) node() *yaml.Node {
	offset := int(r.decoder.InputOffset())
	for offset < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[offset]) >= 0 {
		offset++
	}
	for ; r.seen < offset; r.seen++ {
		switch next := r.text[r.seen]; {
		case next == '\n':
			r.line, r.column = r.line+1, 1
		case utf8.RuneStart(next):
			r.column++
		}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
}
