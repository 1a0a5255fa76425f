package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// document is the OpenAPI document as its readers get it: decoded from its text.
func document(t *testing.T) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(text(t, api.Document("1.2.3"))), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDocumentHoldsEveryRoute(t *testing.T) {
	paths := document(t)["paths"].(map[string]any)
	seen := map[string]string{}
	count := 0
	for _, route := range api.Routes() {
		item, _ := paths[route.Path].(map[string]any)
		operation, _ := item[strings.ToLower(route.Method)].(map[string]any)
		if operation == nil {
			t.Errorf("%s is not in the document", route.Pattern())
			continue
		}
		id := operation["operationId"].(string)
		if first, twice := seen[id]; twice {
			t.Errorf("%s and %s are both called %s", first, route.Pattern(), id)
		}
		seen[id] = route.Pattern()
		if operation["x-access"] != string(route.Access) || operation["summary"] == "" {
			t.Errorf("%s: access or summary is missing", route.Pattern())
		}
	}
	for _, item := range paths {
		count += len(item.(map[string]any))
	}
	if count != len(api.Routes()) {
		t.Errorf("the document has %d operations, the table %d", count, len(api.Routes()))
	}
}

func TestDocumentRefersToWhatItHolds(t *testing.T) {
	doc := document(t)
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	var walk func(at string, value any)
	walk = func(at string, value any) {
		switch v := value.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				name := strings.TrimPrefix(ref, "#/components/schemas/")
				if schema, _ := schemas[name].(map[string]any); len(schema) == 0 {
					t.Errorf("%s refers to %s, which is empty or absent", at, ref)
				}
			}
			for key, inner := range v {
				walk(at+"/"+key, inner)
			}
		case []any:
			for _, inner := range v {
				walk(at, inner)
			}
		}
	}
	walk("", doc)
	for _, kind := range spec.Kinds() {
		if schemas[string(kind)] == nil {
			t.Errorf("kind %s has no schema", kind)
		}
	}
}

// TestSchemasMatchJSON encodes a full and an empty value of every type of the
// table and holds the text against the type's schema.
func TestSchemasMatchJSON(t *testing.T) {
	doc := document(t)
	checked := map[string]bool{}
	for _, route := range api.Routes() {
		in, out := route.Types()
		for _, one := range []struct {
			t      reflect.Type
			schema any
		}{{in, bodySchema(doc, route)}, {out, answerSchema(doc, route)}} {
			if one.t == nil || one.t.Kind() == reflect.Map || one.schema == nil {
				continue
			}
			checked[one.t.String()] = true
			for _, kind := range spec.Kinds() {
				full := reflect.New(one.t).Elem()
				fill(full, kind, 0)
				conform(t, doc, one.t.String()+" full", one.schema, full.Interface())
			}
			if !holdsObject(one.t) { // without a kind it is no object
				conform(t, doc, one.t.String()+" empty", one.schema, reflect.New(one.t).Elem().Interface())
			}
		}
	}
	if len(checked) < 20 {
		t.Errorf("only %d types checked: %v", len(checked), slices.Sorted(maps.Keys(checked)))
	}
}

func operationOf(doc map[string]any, route api.Route) map[string]any {
	return doc["paths"].(map[string]any)[route.Path].(map[string]any)[strings.ToLower(route.Method)].(map[string]any)
}

func bodySchema(doc map[string]any, route api.Route) any {
	body, _ := operationOf(doc, route)["requestBody"].(map[string]any)
	return anySchema(body)
}

func answerSchema(doc map[string]any, route api.Route) any {
	answer, _ := operationOf(doc, route)["responses"].(map[string]any)["200"].(map[string]any)
	return anySchema(answer)
}

func anySchema(holder map[string]any) any {
	content, _ := holder["content"].(map[string]any)
	for _, media := range content {
		return media.(map[string]any)["schema"]
	}
	return nil
}

func holdsObject(t reflect.Type) bool {
	return t == reflect.TypeFor[*spec.Object]() || t == reflect.TypeFor[api.ObjectBody]() || t == reflect.TypeFor[api.RunRequest]()
}

// fill gives every field a value that is not its zero.
func fill(v reflect.Value, kind spec.Kind, depth int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1e9, 0)))
		return
	case spec.Object:
		s := spec.NewSpec(kind)
		fill(reflect.ValueOf(s).Elem(), kind, depth+1)
		o := spec.Object{APIVersion: spec.APIVersion, Kind: kind, Spec: s, Status: &spec.Status{}}
		fill(reflect.ValueOf(&o.Metadata).Elem(), kind, depth+1)
		fill(reflect.ValueOf(o.Status).Elem(), kind, depth+1)
		v.Set(reflect.ValueOf(o))
		return
	case spec.EnvValue:
		v.Set(reflect.ValueOf(spec.EnvValue{Secret: "name/key"}))
		return
	case spec.Publish:
		v.Set(reflect.ValueOf(spec.Publish{HostPort: 1, Port: 2, Protocol: "tcp"}))
		return
	case plan.Risk:
		v.Set(reflect.ValueOf(plan.RiskNone))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), kind, depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), kind, depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), kind, depth+1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, kind, depth+1)
		fill(value, kind, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Interface:
		v.Set(reflect.ValueOf(map[string]any{"any": 1.0}))
	}
}

func conform(t *testing.T, doc map[string]any, what string, schema, value any) {
	t.Helper()
	var decoded any
	if err := json.Unmarshal([]byte(text(t, value)), &decoded); err != nil {
		t.Fatal(err)
	}
	if why := mismatch(doc, schema.(map[string]any), decoded, "$"); why != "" {
		t.Errorf("%s: %s", what, why)
	}
}

// mismatch says where a value breaks a schema. It knows as much of JSON schema
// as the document uses.
func mismatch(doc, schema map[string]any, value any, at string) string {
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		schema = doc["components"].(map[string]any)["schemas"].(map[string]any)[name].(map[string]any)
		return mismatch(doc, schema, value, at)
	}
	if options, ok := schema["oneOf"].([]any); ok {
		var why []string
		for _, option := range options {
			reason := mismatch(doc, option.(map[string]any), value, at)
			if reason == "" {
				return ""
			}
			why = append(why, reason)
		}
		return strings.Join(why, "; ")
	}
	if want, ok := schema["const"]; ok && want != value {
		return fmt.Sprintf("%s is %v, want %v", at, value, want)
	}
	return typeMismatch(doc, schema, value, at)
}

func typeMismatch(doc, schema map[string]any, value any, at string) string {
	kind := map[string]any{"": value}
	ok := true
	switch schema["type"] {
	case "string":
		_, ok = value.(string)
	case "boolean":
		_, ok = value.(bool)
	case "integer", "number":
		_, ok = value.(float64)
	case "null":
		ok = value == nil
	case "array":
		items, isArray := value.([]any)
		if ok = isArray; ok {
			for i, item := range items {
				if why := mismatch(doc, schema["items"].(map[string]any), item, fmt.Sprintf("%s[%d]", at, i)); why != "" {
					return why
				}
			}
		}
	case "object":
		return objectMismatch(doc, schema, value, at)
	}
	if !ok {
		return fmt.Sprintf("%s is %T, want %v", at, kind[""], schema["type"])
	}
	return ""
}

func objectMismatch(doc, schema map[string]any, value any, at string) string {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Sprintf("%s is %T, want object", at, value)
	}
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, there := object[name.(string)]; !there {
			return fmt.Sprintf("%s lacks %s", at, name)
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, inner := range object {
		property, known := properties[name].(map[string]any)
		if !known {
			if other, ok := schema["additionalProperties"].(map[string]any); ok {
				property = other
			} else if schema["additionalProperties"] == false {
				return fmt.Sprintf("%s.%s is not in the schema", at, name)
			}
		}
		if why := mismatch(doc, property, inner, at+"."+name); why != "" {
			return why
		}
	}
	return ""
}
