package api

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// WriteReference writes docs/reference/api.md from the table of routes; a test
// keeps the file true.
func WriteReference(w io.Writer) error {
	var out strings.Builder
	out.WriteString(referenceHead)
	for _, route := range Routes() {
		fmt.Fprintf(&out, "| `%s` | `%s` | %s | %s | %s | %s |\n",
			route.Method, route.Path, route.Access, bodyName(route.in, route.Accepts), bodyName(route.out, route.Answers), summaryOf(route))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

const referenceHead = `# API

Made from the table of routes by ` + "`go test ./agent/api -run TestReference -update`" + `; do not edit. The agent serves the same as
OpenAPI 3.1 with every type's schema at ` + "`/v1/openapi.json`" + `.

HTTP and JSON over the unix socket. The kernel names the caller: root and members of the group ` + "`gpuhost`" + ` are operators,
members of ` + "`gpuhost-view`" + ` viewers; other uids are what the settings map them to, a tenant or nobody.

| access | operator | viewer | tenant | nobody |
|---|---|---|---|---|
| anyone | yes | yes | yes | yes |
| readOwn | yes | yes | its own | no |
| read | yes | yes | no | no |
| own | yes | no | its own | no |
| operate | yes | no | no | no |

- An error is ` + "`application/problem+json`" + ` (RFC 9457) with ` + "`code`" + `, the kind of fault, and ` + "`hint`" + `, the next command.
- Slow work answers 202 with change ids; ` + "`/v1/changes/{id}/watch`" + ` streams the change at every step until it has ended.
- ` + "`ETag`" + ` of an object is its generation; ` + "`If-Match`" + ` refuses a write when somebody was faster.
- ` + "`/v1/events?since=N&follow=true`" + ` resumes after event N. A stream that is cut without its end was cut by an error.
- ` + "`-`" + ` as the tenant of a list means every tenant that the caller may see.
- exec is an upgrade to ` + "`" + ExecProtocol + "`" + `: a type byte, a big-endian uint32 length, and the payload. stdin 1, stdout 2, stderr 3,
  resize 4, exit 5, error 6, close-stdin 7.
- A body is at most 4 MiB (apply, plan and verify 64 MiB; an archive to import as long as it takes), an object 1 MiB.
  A caller other than root has 50 requests a second with a burst of 100, 64 at a time, one of them with a body above 256 KiB;
  more answer 429. It has 128 connections; more are closed.

| method | path | access | takes | gives | |
|---|---|---|---|---|---|
`

func bodyName(t reflect.Type, media string) string {
	if t == nil {
		return media
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := "JSON"
	switch {
	case t == reflect.TypeFor[ObjectBody]():
		name = "Object"
	case t.Kind() == reflect.Struct:
		name = schemaName(t)
	}
	if media != "" {
		name += ", " + media
	}
	return name
}

func summaryOf(route Route) string {
	text := route.Summary
	var names []string
	for _, p := range route.Query {
		names = append(names, "`"+p.Name+"`")
	}
	if len(names) > 0 {
		text += "; parameters " + strings.Join(names, ", ")
	}
	return text
}
