package spec

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
)

// encoder writes values so that no two different ones have the same bytes:
// each value is one letter for its kind and then either a fixed width or a
// length before the content. The format is frozen: golden hashes in testdata
// hold it.
//
//	s LEN bytes     text
//	i 8 bytes       signed integer, big endian
//	f 8 bytes       IEEE 754 bits
//	t | u           true | false
//	p value         what a pointer that is not nil points to
//	l COUNT values  list, in order
//	m COUNT pairs   map, by key
//	o COUNT (name value)…  struct: fields that are not zero, by name
type encoder struct{ buf []byte }

func (e *encoder) count(kind byte, n int) {
	e.buf = append(e.buf, kind)
	e.buf = binary.AppendUvarint(e.buf, uint64(n))
}

func (e *encoder) text(s string) {
	e.count('s', len(s))
	e.buf = append(e.buf, s...)
}

func (e *encoder) pair(name, value string) {
	if value != "" {
		e.text(name)
		e.text(value)
	}
}

func (e *encoder) stringMap(m map[string]string) {
	e.count('m', len(m))
	for _, k := range sortedKeys(m) {
		e.text(k)
		e.text(m[k])
	}
}

// service writes the fields of s whose change replaces a task.
func (e *encoder) service(s *Service) {
	v := reflect.ValueOf(s).Elem()
	var fields []field
	for _, f := range fieldsOf(v.Type()) {
		if f.class == ClassReplace && !empty(v.Field(f.index)) {
			fields = append(fields, f)
		}
	}
	e.fields(v, fields)
}

func (e *encoder) fields(v reflect.Value, fields []field) {
	e.count('o', len(fields))
	for _, f := range fields {
		e.text(f.name)
		e.value(v.Field(f.index))
	}
}

func (e *encoder) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		e.text(v.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.integer(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.integer(int64(v.Uint()))
	case reflect.Float64:
		e.buf = append(e.buf, 'f')
		e.buf = binary.BigEndian.AppendUint64(e.buf, math.Float64bits(v.Float()))
	case reflect.Bool:
		if v.Bool() {
			e.buf = append(e.buf, 't')
		} else {
			e.buf = append(e.buf, 'u')
		}
	case reflect.Pointer:
		e.buf = append(e.buf, 'p')
		e.value(v.Elem())
	case reflect.Slice:
		e.count('l', v.Len())
		for i := range v.Len() {
			e.value(v.Index(i))
		}
	case reflect.Map:
		m := make(map[string]string, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = it.Value().String()
		}
		e.stringMap(m)
	case reflect.Struct:
		var fields []field
		for _, f := range fieldsOf(v.Type()) {
			if !empty(v.Field(f.index)) {
				fields = append(fields, f)
			}
		}
		e.fields(v, fields)
	default:
		// A field of another kind has no defined encoding; a test encodes
		// every field, so this is found before it can run.
		panic(fmt.Sprintf("spec: no canonical encoding for %s", v.Type()))
	}
}

// empty is what the encoding leaves out: the zero value, and a list or map
// without entries, which JSON does not keep apart from a nil one.
func empty(v reflect.Value) bool {
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}

func (e *encoder) integer(n int64) {
	e.buf = append(e.buf, 'i')
	e.buf = binary.BigEndian.AppendUint64(e.buf, uint64(n))
}

// field is one exported field of a struct, by the name it has in JSON: that
// name is part of the hash, the Go name is not.
type field struct {
	index int
	name  string
	class Class
}

var fieldCache sync.Map // reflect.Type -> []field

// fieldsOf lists the fields of struct type t by name.
func fieldsOf(t reflect.Type) []field {
	if got, ok := fieldCache.Load(t); ok {
		return got.([]field) //nolint:forcetypeassert // only this function stores
	}
	byName := map[string]field{}
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		byName[name] = field{index: i, name: name, class: classOf(f.Tag.Get("class"))}
	}
	var out []field
	for _, name := range sortedKeys(byName) {
		out = append(out, byName[name])
	}
	fieldCache.Store(t, out)
	return out
}
