package spec

import "reflect"

// Clone is a deep copy: nothing in it is shared with o.
func (o *Object) Clone() *Object {
	if o == nil {
		return nil
	}
	return deepCopy(reflect.ValueOf(o)).Interface().(*Object)
}

// deepCopy follows pointers, slices, maps and interfaces. Plain data, which is
// most of a rule set, is copied as a block.
func deepCopy(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		copied := reflect.New(v.Type().Elem())
		copied.Elem().Set(deepCopy(v.Elem()))
		return copied
	case reflect.Interface:
		if v.IsNil() {
			return v
		}
		return deepCopy(v.Elem())
	case reflect.Slice:
		return copySlice(v)
	case reflect.Map:
		return copyMap(v)
	case reflect.Struct:
		return copyStruct(v)
	}
	return v
}

func copySlice(v reflect.Value) reflect.Value {
	if v.IsNil() {
		return v
	}
	copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	if isPlain(v.Type().Elem()) {
		reflect.Copy(copied, v)
		return copied
	}
	for i := range v.Len() {
		copied.Index(i).Set(deepCopy(v.Index(i)))
	}
	return copied
}

func copyMap(v reflect.Value) reflect.Value {
	if v.IsNil() {
		return v
	}
	copied := reflect.MakeMapWithSize(v.Type(), v.Len())
	for pairs := v.MapRange(); pairs.Next(); {
		copied.SetMapIndex(pairs.Key(), deepCopy(pairs.Value()))
	}
	return copied
}

func copyStruct(v reflect.Value) reflect.Value {
	copied := reflect.New(v.Type()).Elem()
	copied.Set(v)
	for i := range v.NumField() {
		if field := v.Type().Field(i); field.IsExported() && !isPlain(field.Type) {
			copied.Field(i).Set(deepCopy(v.Field(i)))
		}
	}
	return copied
}

// isPlain says whether a block copy of the type shares nothing. A time.Time
// shares its location, which nobody can change.
func isPlain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map:
		return false
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() && !isPlain(t.Field(i).Type) {
				return false
			}
		}
	}
	return true
}
