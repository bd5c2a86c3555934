package spec

import (
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/types"
)

// The loader's decoder goes through all hundred fields of a service and looks
// for each among the attributes, with and without regard to case. This one
// goes through the attributes. It converts nothing but what the types convert
// themselves: a value of another kind than its field is left to the loader.

// decodes is implemented by the types that read more than one form.
type decodes interface{ DecodeMapstructure(v any) error }

// decodeServices takes services out of a complete model and decodes them.
func decodeServices(model map[string]any) (types.Services, error) {
	written, ok := model["services"].(map[string]any)
	if !ok {
		return nil, errNotPlain
	}
	out := make(types.Services, len(written))
	for name, v := range written {
		if _, ok := v.(map[string]any); !ok {
			return nil, errNotPlain
		}
		var s types.ServiceConfig
		if err := decode(v, reflect.ValueOf(&s).Elem()); err != nil {
			return nil, err
		}
		s.Name = name
		out[name] = s
	}
	delete(model, "services")
	return out, nil
}

// decode stores v in to, which can be set. Nothing stays nothing.
func decode(v any, to reflect.Value) error {
	if v == nil {
		return nil
	}
	if to.Kind() == reflect.Pointer {
		whole := reflect.New(to.Type().Elem())
		to.Set(whole)
		return decode(v, whole.Elem())
	}
	if own, ok := to.Addr().Interface().(decodes); ok {
		if holdsExtension(v) {
			return errNotPlain
		}
		return own.DecodeMapstructure(v) //nolint:wrapcheck // only whether there is an error is asked
	}
	switch v := v.(type) {
	case map[string]any:
		switch {
		case v == nil:
			return nil
		case to.Kind() == reflect.Struct:
			return decodeStruct(v, to)
		}
		return decodeMap(v, to)
	case []any:
		if v == nil {
			return nil
		}
		return decodeList(v, to)
	}
	return decodeScalar(v, to)
}

// holdsExtension says that v is a mapping with an extension in it, which the loader
// takes out.
func holdsExtension(v any) bool {
	m, _ := v.(map[string]any)
	for key := range m {
		if strings.HasPrefix(key, "x-") {
			return true
		}
	}
	return false
}

func decodeStruct(v map[string]any, to reflect.Value) error {
	fields := yamlFields(to.Type())
	var extensions map[string]any
	for key, e := range v {
		if strings.HasPrefix(key, "x-") {
			if extensions == nil {
				extensions = map[string]any{}
			}
			extensions[key] = e
			continue
		}
		field, ok := fields[key]
		if !ok {
			return errNotPlain
		}
		if err := decode(e, to.FieldByIndex(field)); err != nil {
			return err
		}
	}
	if extensions != nil {
		field, ok := fields[consts.Extensions]
		if !ok {
			return errNotPlain
		}
		to.FieldByIndex(field).Set(reflect.ValueOf(types.Extensions(extensions)))
	}
	return nil
}

var structs sync.Map // reflect.Type to map[string][]int

// yamlFields gives the fields of a struct by the names that files have for them.
func yamlFields(t reflect.Type) map[string][]int {
	if known, ok := structs.Load(t); ok {
		return known.(map[string][]int) //nolint:forcetypeassert // nothing else is stored
	}
	out := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			out[name] = f.Index
		}
	}
	structs.Store(t, out)
	return out
}

func decodeMap(v map[string]any, to reflect.Value) error {
	t := to.Type()
	if to.Kind() == reflect.Interface {
		if holdsExtension(v) {
			return errNotPlain
		}
		to.Set(reflect.ValueOf(v))
		return nil
	}
	if to.Kind() != reflect.Map || t.Key().Kind() != reflect.String || holdsExtension(v) {
		return errNotPlain
	}
	out := reflect.MakeMapWithSize(t, len(v))
	for key, e := range v {
		item := reflect.New(t.Elem()).Elem()
		if err := decode(e, item); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), item)
	}
	to.Set(out)
	return nil
}

func decodeList(v []any, to reflect.Value) error {
	if to.Kind() != reflect.Slice {
		return errNotPlain
	}
	out := reflect.MakeSlice(to.Type(), len(v), len(v))
	for i, e := range v {
		if err := decode(e, out.Index(i)); err != nil {
			return err
		}
	}
	to.Set(out)
	return nil
}

func decodeScalar(v any, to reflect.Value) error {
	from := reflect.ValueOf(v)
	switch kind := to.Kind(); {
	case from.Type().AssignableTo(to.Type()):
		to.Set(from)
	case kind == reflect.String && from.Kind() == reflect.String:
		to.SetString(from.String())
	case kind == reflect.String && from.Kind() == reflect.Int:
		to.SetString(strconv.FormatInt(from.Int(), 10))
	case to.CanInt() && from.CanInt() && !to.OverflowInt(from.Int()):
		to.SetInt(from.Int())
	case to.CanUint() && from.CanInt() && from.Int() >= 0 && !to.OverflowUint(uint64(from.Int())):
		to.SetUint(uint64(from.Int()))
	case to.CanFloat() && from.CanFloat():
		to.SetFloat(from.Float())
	case to.CanFloat() && from.CanInt():
		to.SetFloat(float64(from.Int()))
	default:
		return errNotPlain
	}
	return nil
}
