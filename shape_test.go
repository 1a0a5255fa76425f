package main_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// These tests hold what CONTRIBUTING.md says about the shape of a file, as far
// as a program can see it.

const (
	maxMainLines     = 30
	maxFileLines     = 800
	maxFunctionLines = 100
)

// emptyNames say nothing about what a package is for.
var emptyNames = []string{"base", "common", "helper", "helpers", "lib", "manager", "misc", "shared", "types", "util", "utils"}

// commands are programs whose work the product does itself, over netlink,
// D-Bus and the containerd client.
var commands = []string{"ctr", "docker", "ip", "ip6tables", "iptables", "modprobe", "nft", "nsenter", "systemctl", "tc", "unshare"}

func TestFilesAndFunctionsAreShort(t *testing.T) {
	for _, f := range allFiles(t) {
		limit := maxFileLines
		if f.path == "main.go" {
			limit = maxMainLines
		}
		if lines := f.line(f.syntax.FileEnd); lines > limit {
			t.Errorf("%s has %d lines, at most %d: split it by noun", f.path, lines, limit)
		}
		for _, decl := range f.syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && f.line(fn.End())-f.line(fn.Pos()) >= maxFunctionLines {
				t.Errorf("%s: %s has over %d lines: name its parts", f.at(fn), fn.Name.Name, maxFunctionLines)
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, f := range allFiles(t) {
		for _, decl := range f.syntax.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init: what a package needs is passed to its constructor", f.at(fn))
			}
		}
	}
}

func TestNoMutableGlobals(t *testing.T) {
	changed := map[string]bool{} // "network/nft.name"
	files := productFiles(t)
	for _, f := range files {
		for _, name := range changedNames(f.syntax) {
			changed[f.pkg+"."+name] = true
		}
	}
	for _, f := range files {
		for _, v := range globals(f.syntax) {
			switch {
			case v.name.Name == "_" || v.embedded:
			case v.value == nil:
				t.Errorf("%s: var %s has no value, so something sets it: pass it to a constructor", f.at(v.name), v.name.Name)
			case isEmptyContainer(v.value):
				t.Errorf("%s: var %s begins empty, so something fills it: make it a field", f.at(v.name), v.name.Name)
			case changed[f.pkg+"."+v.name.Name]:
				t.Errorf("%s: var %s is changed at run time: make it a field", f.at(v.name), v.name.Name)
			}
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, f := range productFiles(t) {
		for _, decl := range f.syntax.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s: %s has no comment: say what it is, its unit, its errors", f.at(name), name.Name)
			}
		}
	}
}

func TestPackagesAreDocumentedAndNamedByWhatTheyDo(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range productFiles(t) {
		documented[f.pkg] = documented[f.pkg] || f.syntax.Doc != nil
		if name := f.syntax.Name.Name; slices.Contains(emptyNames, name) {
			t.Errorf("%s: package %s says nothing: name it by what it does", f.path, name)
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment: say what it is for, what not, and who is next to it", pkg)
		}
	}
}

func TestProductRunsNoTools(t *testing.T) {
	for _, f := range productFiles(t) {
		if !slices.Contains(f.imports, "os/exec") || within(f.pkg, "packaging") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err == nil && slices.Contains(commands, path.Base(text)) {
				t.Errorf("%s: %q beside os/exec: use the library, the kernel's interface or D-Bus", f.at(lit), text)
			}
			return true
		})
	}
}

// line is the line number of a position.
func (f goFile) line(pos token.Pos) int { return f.fset.Position(pos).Line }

// at is where a node stands, as editors understand it.
func (f goFile) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.line(n.Pos()))
}

// global is one package-level variable.
type global struct {
	name     *ast.Ident
	value    ast.Expr
	embedded bool
}

func globals(file *ast.File) []global {
	var found []global
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.VAR {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec)
			embedded := hasEmbed(group.Doc) || hasEmbed(value.Doc)
			for i, name := range value.Names {
				g := global{name: name, embedded: embedded}
				if len(value.Values) > 0 {
					g.value = value.Values[min(i, len(value.Values)-1)]
				}
				found = append(found, g)
			}
		}
	}
	return found
}

func hasEmbed(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// isEmptyContainer recognises make(…), new(…) and a composite without elements.
func isEmptyContainer(value ast.Expr) bool {
	if unary, ok := value.(*ast.UnaryExpr); ok && unary.Op == token.AND {
		value = unary.X
	}
	switch v := value.(type) {
	case *ast.CallExpr:
		fn, ok := v.Fun.(*ast.Ident)
		return ok && (fn.Name == "make" || fn.Name == "new")
	case *ast.CompositeLit:
		_, isStruct := v.Type.(*ast.Ident)
		return len(v.Elts) == 0 && !isStruct
	}
	return false
}

// changedNames are the identifiers that a file assigns to, counts up, or takes
// the address of, and that the file does not declare in the same function. It
// errs on the side of fewer names: a local variable hides a global.
func changedNames(file *ast.File) []string {
	var names []string
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		local := declaredIn(fn)
		ast.Inspect(fn, func(n ast.Node) bool {
			for _, target := range targets(n) {
				if name := root(target); name != "" && !local[name] {
					names = append(names, name)
				}
			}
			return true
		})
	}
	return names
}

// targets are the expressions a node changes or lets others change.
func targets(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	}
	return nil
}

// root is the variable at the left end of x, x.f, x[i], or "".
func root(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return root(e.X)
	case *ast.IndexExpr:
		return root(e.X)
	case *ast.StarExpr:
		return root(e.X)
	}
	return ""
}

// declaredIn are the names of a function's parameters, results and variables.
func declaredIn(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	add := func(idents ...*ast.Ident) {
		for _, id := range idents {
			names[id.Name] = true
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			add(n.Names...)
		case *ast.ValueSpec:
			add(n.Names...)
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					add(id)
				}
			}
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					add(id)
				}
			}
		}
		return true
	})
	return names
}

// undocumented are the exported names of a declaration that no comment covers.
// A group's comment covers its members.
func undocumented(decl ast.Decl) []*ast.Ident {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || ast.IsExported(root(receiver(d)))) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		var names []*ast.Ident
		for _, spec := range d.Specs {
			names = append(names, undocumentedSpec(spec)...)
		}
		return names
	}
	return nil
}

func receiver(fn *ast.FuncDecl) ast.Expr { return fn.Recv.List[0].Type }

func undocumentedSpec(spec ast.Spec) []*ast.Ident {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
			return []*ast.Ident{s.Name}
		}
	case *ast.ValueSpec:
		if s.Doc == nil && s.Comment == nil {
			return slices.DeleteFunc(slices.Clone(s.Names), func(id *ast.Ident) bool { return !id.IsExported() })
		}
	}
	return nil
}
