package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// raw is a value as it was written, before it has a type.
type raw struct {
	kind  rawKind
	text  string            // of a scalar, unquoted
	list  []string          // of an array
	pairs map[string]string // of a table
}

type rawKind string

const (
	rawText   rawKind = "a text" // from the environment and from flags also everything else
	rawNumber rawKind = "a number"
	rawBool   rawKind = "true or false"
	rawOther  rawKind = "a date"
	rawList   rawKind = "a list"
	rawTable  rawKind = "a table"
	rawPlain  rawKind = "a word" // from outside a file: of any kind
)

// value reads a setting from what was written and shows it as TOML.
type value interface {
	set(raw) error
	String() string
}

// one is a setting of one text or number.
type one[T any] struct {
	field  *T
	parse  func(string) (T, error)
	format func(T) string // as TOML
	kinds  []rawKind
}

func (v *one[T]) set(r raw) error {
	if r.kind != rawPlain && !slices.Contains(v.kinds, r.kind) {
		return fmt.Errorf("is %s, not %s", r.kind, v.kinds[0])
	}
	parsed, err := v.parse(r.text)
	if err != nil {
		return about(r.text, err)
	}
	*v.field = parsed
	return nil
}

// about names the text that an error is about, unless the error does.
func about(text string, err error) error {
	if known := (*fault.Error)(nil); errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("%s %w", strconv.Quote(text), err)
}

// String implements value.
func (v *one[T]) String() string { return v.format(*v.field) }

func text(field *string, check func(string) error) *one[string] {
	parse := func(s string) (string, error) {
		if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return "", errors.New("has a character that cannot be shown")
		}
		return s, check(s)
	}
	return &one[string]{field, parse, strconv.Quote, []rawKind{rawText}}
}

func choice(field *string, known ...string) *one[string] {
	return text(field, func(s string) error {
		if slices.Contains(known, s) {
			return nil
		}
		why := "is not one of " + strings.Join(known, ", ")
		if near := spec.Nearest(s, known); near != "" {
			why += "; the nearest is " + near
		}
		return errors.New(why)
	})
}

// scalar is written as a text and may be written as a number.
func scalar[T any](field *T, parse func(string) (T, error), format func(T) string) *one[T] {
	return &one[T]{field, parse, func(v T) string { return strconv.Quote(format(v)) }, []rawKind{rawText, rawNumber}}
}

func number[T int | uint32](field *T, low, high int64) *one[T] {
	parse := func(s string) (T, error) {
		n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
		switch {
		case err != nil:
			return 0, errors.New("is no whole number")
		case n < low || n > high:
			return 0, fmt.Errorf("is not between %d and %d", low, high)
		}
		return T(n), nil
	}
	return &one[T]{field, parse, func(v T) string { return strconv.FormatInt(int64(v), 10) }, []rawKind{rawNumber}}
}

func boolean(field *bool) *one[bool] {
	parse := func(s string) (bool, error) {
		on, err := strconv.ParseBool(s)
		if err != nil {
			return false, errors.New("is neither true nor false")
		}
		return on, nil
	}
	return &one[bool]{field, parse, strconv.FormatBool, []rawKind{rawBool}}
}

// many is a setting of several texts.
type many[T any] struct {
	field  *[]T
	parse  func(string) (T, error)
	format func(T) string
}

func list[T any](field *[]T, parse func(string) (T, error), format func(T) string) *many[T] {
	return &many[T]{field, parse, format}
}

func (v *many[T]) set(r raw) error {
	items := r.list
	switch {
	case r.kind == rawPlain && r.text != "":
		items = strings.Split(r.text, ",")
	case r.kind != rawPlain && r.kind != rawList:
		return fmt.Errorf("is %s, not a list", r.kind)
	}
	var parsed []T
	for _, item := range items {
		element, err := v.parse(strings.TrimSpace(item))
		if err != nil {
			return about(item, err)
		}
		parsed = append(parsed, element)
	}
	*v.field = parsed
	return nil
}

// String implements value.
func (v *many[T]) String() string {
	var items []string
	for _, element := range *v.field {
		items = append(items, strconv.Quote(v.format(element)))
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// mapping is a setting of pairs of texts.
type mapping struct {
	field *map[string]string
	check func(key, value string) error
}

func pairs(field *map[string]string, check func(key, value string) error) *mapping {
	return &mapping{field, check}
}

func (v *mapping) set(r raw) error {
	read := r.pairs
	if r.kind == rawPlain {
		read = map[string]string{}
		for _, item := range strings.Split(r.text, ",") {
			key, value, both := strings.Cut(strings.TrimSpace(item), "=")
			if !both && item != "" {
				return fmt.Errorf("%q is no key=value", item)
			}
			if item != "" {
				read[key] = value
			}
		}
	} else if r.kind != rawTable {
		return fmt.Errorf("is %s, not a table", r.kind)
	}
	for _, key := range slices.Sorted(maps.Keys(read)) {
		if err := v.check(key, read[key]); err != nil {
			return err
		}
	}
	if len(read) == 0 {
		read = nil
	}
	*v.field = read
	return nil
}

// String implements value.
func (v *mapping) String() string {
	var items []string
	for _, key := range slices.Sorted(maps.Keys(*v.field)) {
		items = append(items, strconv.Quote(key)+" = "+strconv.Quote((*v.field)[key]))
	}
	return "{" + strings.Join(items, ", ") + "}"
}
