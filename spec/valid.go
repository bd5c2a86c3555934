package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/schema"
)

// The loader compiles the Compose schema in each process, which takes as long
// as all the rest, and is worth it for what it says of a wrong file. A right
// one is held against the schema here, as it is written. What this reading
// does not know, it does not take: then the loader is asked.

// schemaRule is a schema, or a part of one: the words of JSON Schema 2020-12 that
// the Compose schema uses.
type schemaRule struct {
	Ref         string                 `json:"$ref"`
	Type        names                  `json:"type"`
	Enum        []string               `json:"enum"`
	Pattern     string                 `json:"pattern"`
	Minimum     *float64               `json:"minimum"`
	Maximum     *float64               `json:"maximum"`
	Items       *schemaRule            `json:"items"`
	UniqueItems bool                   `json:"uniqueItems"`
	Required    []string               `json:"required"`
	Properties  map[string]*schemaRule `json:"properties"`
	Patterns    map[string]*schemaRule `json:"patternProperties"`
	Additional  *bool                  `json:"additionalProperties"`
	Unevaluated *bool                  `json:"unevaluatedProperties"`
	AllOf       []*schemaRule          `json:"allOf"`
	AnyOf       []*schemaRule          `json:"anyOf"`
	OneOf       []*schemaRule          `json:"oneOf"`
	Definitions map[string]*schemaRule `json:"$defs"`

	// These say nothing of what is valid.
	Schema      string `json:"$schema"`
	ID          string `json:"$id"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Default     any    `json:"default"`
	Deprecated  bool   `json:"deprecated"`
}

// names is one name or a list of them.
type names []string

func (n *names) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		*n = make(names, 1)
		return json.Unmarshal(text, &(*n)[0])
	}
	return json.Unmarshal(text, (*[]string)(n))
}

// composeRules is the Compose schema; nil if it has words that schemaRule has not.
var composeRules = sync.OnceValue(func() *schemaRule { return parseRules(schema.Schema) })

func parseRules(text string) *schemaRule {
	var root schemaRule
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if dec.Decode(&root) != nil || root.Schema != "https://json-schema.org/draft/2020-12/schema" {
		return nil
	}
	return &root
}

// errUnsure says that the loader has to be asked about a value.
var errUnsure = errors.New("not known to be valid")

// valid holds a model against the Compose schema.
func valid(model map[string]any) (err error) {
	defer func() {
		if recover() != nil { // a value or a reference of an unknown kind
			err = errUnsure
		}
	}()
	v := validator{composeRules(), map[string]*regexp.Regexp{}}
	if v.root == nil || !v.takes(v.root, model) {
		return errUnsure
	}
	return nil
}

type validator struct {
	root  *schemaRule
	forms map[string]*regexp.Regexp
}

func (v *validator) follow(ref string) *schemaRule {
	name, ok := strings.CutPrefix(ref, "#/$defs/")
	if !ok || v.root.Definitions[name] == nil {
		panic("the schema refers to " + ref)
	}
	return v.root.Definitions[name]
}

func (v *validator) matches(form, text string) bool {
	re := v.forms[form]
	if re == nil {
		re = regexp.MustCompile(form)
		v.forms[form] = re
	}
	return re.MatchString(text)
}

// takes says whether r allows value. It must be exact, for oneOf counts.
func (v *validator) takes(r *schemaRule, value any) bool {
	value = withoutNil(value)
	if r.Ref != "" && !v.takes(v.follow(r.Ref), value) {
		return false
	}
	if len(r.Type) > 0 && !slices.ContainsFunc(r.Type, func(t string) bool { return isKind(t, value) }) {
		return false
	}
	switch value := value.(type) {
	case map[string]any:
		if !v.takesMapping(r, value) {
			return false
		}
	case []any:
		if !v.takesList(r, value) {
			return false
		}
	case string:
		if r.Pattern != "" && !v.matches(r.Pattern, value) {
			return false
		}
	}
	if n, ok := number(value); ok && ((r.Minimum != nil && n < *r.Minimum) || (r.Maximum != nil && n > *r.Maximum)) {
		return false
	}
	if text, ok := value.(string); len(r.Enum) > 0 && (!ok || !slices.Contains(r.Enum, text)) {
		return false
	}
	return v.count(r.AllOf, value) == len(r.AllOf) &&
		(len(r.AnyOf) == 0 || v.count(r.AnyOf, value) > 0) &&
		(len(r.OneOf) == 0 || v.count(r.OneOf, value) == 1)
}

// withoutNil is value as JSON has it: a list or a mapping that is nil is null.
func withoutNil(value any) any {
	switch v := value.(type) {
	case map[string]any:
		if v == nil {
			return nil
		}
	case []any:
		if v == nil {
			return nil
		}
	}
	return value
}

func (v *validator) count(rules []*schemaRule, value any) int {
	n := 0
	for _, r := range rules {
		if v.takes(r, value) {
			n++
		}
	}
	return n
}

func (v *validator) takesMapping(r *schemaRule, value map[string]any) bool {
	for _, key := range r.Required {
		if _, ok := value[key]; !ok {
			return false
		}
	}
	for key, e := range value {
		named := r.Properties[key]
		if named != nil && !v.takes(named, e) {
			return false
		}
		free := named == nil
		for form, p := range r.Patterns {
			if v.matches(form, key) {
				free = false
				if !v.takes(p, e) {
					return false
				}
			}
		}
		if free && (r.Additional != nil && !*r.Additional || r.Unevaluated != nil && !*r.Unevaluated && !v.knows(r, key)) {
			return false
		}
	}
	return true
}

// knows says that a part of r is about the attribute key.
func (v *validator) knows(r *schemaRule, key string) bool {
	if r.Ref != "" && v.knows(v.follow(r.Ref), key) || r.Properties[key] != nil {
		return true
	}
	for form := range r.Patterns {
		if v.matches(form, key) {
			return true
		}
	}
	if len(r.AnyOf)+len(r.OneOf) > 0 || r.Additional != nil && *r.Additional {
		panic("what is known depends on the value")
	}
	return slices.ContainsFunc(r.AllOf, func(part *schemaRule) bool { return v.knows(part, key) })
}

func (v *validator) takesList(r *schemaRule, list []any) bool {
	if r.UniqueItems && repeats(list) {
		return false
	}
	if r.Items == nil {
		return true
	}
	for _, e := range list {
		if !v.takes(r.Items, e) {
			return false
		}
	}
	return true
}

// repeats says that two items are the same.
func repeats(list []any) bool {
	if len(list) < 2 {
		return false
	}
	seen := make(map[any]bool, len(list))
	for i, e := range list {
		var key any
		switch e.(type) {
		case map[string]any, []any:
			for _, other := range list[:i] {
				if reflect.DeepEqual(asJSON(e), asJSON(other)) {
					return true
				}
			}
			continue
		}
		if n, ok := number(e); ok {
			key = n
		} else {
			key = e
		}
		if seen[key] {
			return true
		}
		seen[key] = true
	}
	return false
}

// asJSON is v as it is when it was written as JSON and read again.
func asJSON(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out any
	if json.NewDecoder(bytes.NewReader(text)).Decode(&out) != nil {
		panic("no JSON: " + strconv.Quote(string(text)))
	}
	return out
}

// number is the value of a number.
func number(v any) (n float64, ok bool) {
	switch v := v.(type) {
	case float64, float32, int, int64, uint64, int32, uint32:
		n := reflect.ValueOf(v).Convert(reflect.TypeFor[float64]()).Float()
		if math.IsNaN(n) || math.IsInf(n, 0) {
			panic("no JSON")
		}
		return n, true
	}
	return 0, false
}

// isKind says whether value is of a type of JSON Schema.
func isKind(kind string, value any) bool {
	n, numeric := number(value)
	var is string
	switch value.(type) {
	case nil:
		is = "null"
	case bool:
		is = "boolean"
	case string:
		is = "string"
	case []any:
		is = "array"
	case map[string]any:
		is = "object"
	default:
		if !numeric {
			panic("no JSON")
		}
		is = "number"
	}
	return kind == is || kind == "integer" && numeric && n == math.Trunc(n)
}
