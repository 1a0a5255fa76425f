package api

import (
	"net/http"
	"reflect"
	"strconv"
	"strings"
)

// Document is the OpenAPI 3.1 description of [Routes]. It is plain data, ready
// to be encoded; keys come out sorted, so equal tables give equal texts.
func Document(version string) map[string]any {
	schemas := newSchemas()
	paths := map[string]any{}
	for _, route := range Routes() {
		item, _ := paths[route.Path].(map[string]any)
		if item == nil {
			item = map[string]any{}
			paths[route.Path] = item
		}
		item[strings.ToLower(route.Method)] = operation(route, schemas)
	}
	schemas.of(reflect.TypeFor[Fault]())
	return map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title":       "gpuhost",
			"version":     version,
			"description": "The host agent of a GPU cloud. Served on a unix socket; the kernel names the caller.",
		},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas.known},
	}
}

func getDocument(s *Server, _ *call) (map[string]any, error) {
	return Document(s.options.Version.Version), nil
}

func operation(route Route, schemas *schemas) map[string]any {
	op := map[string]any{
		"operationId": operationID(route),
		"summary":     route.Summary,
		"responses":   responses(route, schemas),
		"x-access":    string(route.Access),
	}
	if params := parameters(route); len(params) > 0 {
		op["parameters"] = params
	}
	switch {
	case route.in != nil:
		op["requestBody"] = map[string]any{"required": true, "content": content("application/json", schemas.of(route.in))}
	case route.Accepts != "":
		op["requestBody"] = map[string]any{"required": true, "content": content(route.Accepts, map[string]any{"type": "string", "format": "binary"})}
	}
	return op
}

// operationID is "getTenantsInstancesName": method and path, as an identifier.
func operationID(route Route) string {
	id := strings.ToLower(route.Method)
	for _, part := range strings.FieldsFunc(route.Path, func(r rune) bool { return strings.ContainsRune("/{}.", r) }) {
		if part != "v1" {
			id += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return id
}

func parameters(route Route) []any {
	var params []any
	for _, name := range route.wildcards() {
		params = append(params, map[string]any{
			"name": name, "in": "path", "required": true, "schema": map[string]any{"type": "string"},
		})
	}
	for _, p := range route.Query {
		params = append(params, map[string]any{
			"name": p.Name, "in": "query", "description": p.Help, "schema": map[string]any{"type": p.Type},
		})
	}
	if route.Method == http.MethodPut || route.Method == http.MethodDelete && strings.HasSuffix(route.Path, "}") {
		params = append(params, map[string]any{
			"name": "If-Match", "in": "header", "description": "the generation that was read before",
			"schema": map[string]any{"type": "string"},
		})
	}
	return params
}

func responses(route Route, schemas *schemas) map[string]any {
	answers := map[string]any{
		"default": map[string]any{
			"description": "what went wrong",
			"content":     content(ProblemType, schemas.of(reflect.TypeFor[Fault]())),
		},
	}
	if strings.HasSuffix(route.Path, "/exec") {
		answers[strconv.Itoa(http.StatusSwitchingProtocols)] = map[string]any{"description": "the connection speaks " + ExecProtocol}
		return answers
	}
	ok := map[string]any{"description": "done"}
	switch {
	case route.out != nil && route.Answers != "":
		ok["content"] = content(route.Answers, schemas.of(route.out))
	case route.out != nil:
		ok["content"] = content("application/json", schemas.of(route.out))
	case route.Answers != "":
		ok["content"] = content(route.Answers, map[string]any{"type": "string"})
	}
	answers[strconv.Itoa(http.StatusOK)] = ok
	if route.out != nil && route.out.Implements(reflect.TypeFor[pending]()) {
		slow := map[string]any{"description": "under way; watch /v1/changes/{id}", "content": ok["content"]}
		answers[strconv.Itoa(http.StatusAccepted)] = slow
	}
	return answers
}

func content(media string, schema map[string]any) map[string]any {
	return map[string]any{media: map[string]any{"schema": schema}}
}
