package spec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/spec"
)

func templateValues() spec.TemplateValues {
	var v spec.TemplateValues
	v.Service.ID, v.Service.Name = "shop_web", "web"
	v.Service.Labels = map[string]string{"team": "blue", "tier": "front"}
	v.Task.ID, v.Task.Name, v.Task.Slot = "abc123", "shop-web-1", "1"
	v.Node.ID, v.Node.Hostname = "n1", "host"
	v.Node.Platform.Architecture, v.Node.Platform.OS = "amd64", "linux"
	v.Stack.Name = "shop"
	return v
}

func value(kind, name string) (string, error) {
	if name == "missing" {
		return "", fmt.Errorf("no %s %q here", kind, name)
	}
	if name == "big" {
		return strings.Repeat("x", 500<<10), nil
	}
	return kind + "-" + name, nil
}

func expand(text string, secret bool) (string, error) {
	t, err := spec.ParseTemplate([]byte(text), secret)
	if err != nil {
		return "", err
	}
	out, err := t.Expand(templateValues(), value, 1<<20)
	return string(out), err
}

func TestTemplate_Expand(t *testing.T) {
	for text, want := range map[string]string{
		"":              "",
		"plain $x {}\n": "plain $x {}\n",
		"{{.Service.Name}} {{.Service.ID}} {{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}":    "web shop_web abc123 shop-web-1 1",
		"{{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.Architecture}} {{.Stack.Name}}": "n1 host amd64 shop",
		`{{secret "a"}} {{config "b"}} {{env "C"}}`:                                       "secret-a config-b env-C",
		`{{index .Service.Labels "team"}} {{.Service.Labels.tier}}`:                       "blue front",
		`{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{else}}none{{end}}`:            "team=blue;tier=front;",
		`{{if eq .Task.Slot "1" "2"}}first{{else if ne 1 2}}b{{end}}`:                     "first",
		`{{with secret "a"}}[{{.}}]{{end}}{{$x := env "Y"}}{{$x | urlquery}}`:             "[secret-a]env-Y",
		`{{join "," "a" (secret "b")}} {{len "abc"}} {{html "<"}} {{js "'"}}`:             `a,secret-b 3 &lt; \'`,
		`{{- /* a comment */ -}} {{if and (eq 1 1) (not false)}}y{{end}}`:                 "y",
	} {
		if got, err := expand(text, false); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestTemplate_Mistakes_HaveALine(t *testing.T) {
	for text, want := range map[string]string{
		"a\n{{secret \"missing\"}}":                 `line 2 of the template: no secret "missing" here`,
		"a\n\n{{.Task.Named}}":                      "line 3 of the template: there is no field Named",
		"{{.Service.Labels.none}}":                  `line 1 of the template: there is no label "none"`,
		`{{index .Service.Labels "none"}}`:          `line 1 of the template: there is no label "none"`,
		"a\n{{if}}{{end}}":                          "line 2 of the template: missing value for if",
		"a\n{{ .Task.ID\n":                          "line 2 of the template: unclosed action",
		"a\n{{ (.Task.ID":                           "line 2 of the template: unclosed action",
		"\n{{foo 1}}":                               `line 2 of the template: function "foo" not defined`,
		"\n{{printf \"%1000000d\" 1}}":              "line 2 of the template: there is no function printf",
		"{{len (print 1)}}":                         "line 1 of the template: there is no function print",
		"{{call .Task.ID}}":                         "line 1 of the template: there is no function call",
		`{{secret .Task.ID}}`:                       "line 1 of the template: secret needs a name in quotes",
		`{{"a" | secret}}`:                          "line 1 of the template: secret needs a name in quotes",
		`{{eq env "A"}}`:                            "line 1 of the template: env needs a name in quotes",
		`{{define "a"}}x{{end}}`:                    "it defines a template of its own",
		"\n{{template \"t\"}}":                      "line 2 of the template: it calls a template",
		`{{block "b" .}}x{{end}}`:                   "it defines a template of its own",
		`{{if eq .Task.Slot 1}}a{{end}}`:            "line 1 of the template: a text is compared with what is none",
		`{{range 1000000000}}{{end}}`:               "its loops turn too often",
		`{{range 999}}{{range 999}}{{end}}{{end}}`:  "its loops turn too often",
		`{{range 9}}{{secret "big"}}{{end}}`:        "filled in it is larger than 1 MiB",
		`{{range 99}}{{$x := secret "big"}}{{end}}`: "line 1 of the template: it handles more than 16 MiB",
		`{{$x := secret "big"}}` + strings.Repeat(`{{$x = join "" $x $x}}`, 60): "line 1 of the template: it handles more than 16 MiB",
		strings.Repeat("x", 1000<<10+1):                                         "it is larger than 1000 KiB",
	} {
		_, err := expand(text, false)
		var te *spec.TemplateError
		if !errors.As(err, &te) || err.Error() != want {
			t.Errorf("%.60s: %v; want %s", text, err, want)
		}
	}
}

func TestTemplate_OfASecret_ErrorsQuoteNothing(t *testing.T) {
	for _, text := range []string{
		"{{hunter2}}", `{{"hunter2}}`, "{{.hunter2}}", "{{.Task.hunter2}}", "{{.Service.Labels.hunter2}}", "{{'hunter2'}}", "{{$hunter2}}",
		`{{"hunter2" 1}}`, "{{if hunter2}}", "{{end hunter2}}", "{{1hunter2}}", "{{.Task.ID.hunter2}}", "{{hunter2!}}", "{{nil.hunter2}}",
		"{{template \"hunter2\"}}", "{{define \"hunter2\"}}{{end}}", "{{break hunter2}}", "{{else hunter2}}", "{{len hunter2 .}}", "{{(hunter2",
		"{{len .Task.hunter2}}", `{{index .Service.Labels "hunter2"}}`, `{{eq "hunter2"}}`, `{{eq "hunter2" 1}}`, `{{len 1 "hunter2"}}`,
	} {
		if _, err := expand(text, true); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTemplate_Uses(t *testing.T) {
	tmpl, err := spec.ParseTemplate([]byte("{{if false}}\n{{secret \"a\"}}{{end}}{{range .Service.Labels}}\n{{len (env \"B\")}}{{else}}{{config `c`}}{{end}}"), false)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(tmpl.Uses()); got != "[{secret a 2} {env B 3} {config c 3}]" {
		t.Error(got)
	}
}

func TestTemplate_NamesLabels(t *testing.T) {
	for text, want := range map[string]bool{
		"{{.Service.Name}} {{.Task.ID}} {{$x := .Task}}{{$x.Slot}} {{(.Node).Hostname}}": false,
		"{{.Service.Labels.a}}": true, "{{range .Service.Labels}}{{end}}": true, "{{with .Service}}{{.Name}}{{end}}": true,
		"{{.}}": true, "{{$}}": true, "{{$.Service}}": true, "{{$x := $}}": true, "{{(.Service).Labels}}": true,
		`{{if index .Service.Labels "a"}}{{end}}`: true, "{{with .Stack}}{{$.Service.Labels}}{{end}}": true,
	} {
		tmpl, err := spec.ParseTemplate([]byte(text), false)
		if err != nil || tmpl.NamesLabels() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzTemplate: whatever the text, an expansion ends soon, stays small and
// tells mistakes as a TemplateError.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		`{{secret "a"}}`, `{{range 99}}{{range 99}}{{.}}{{end}}{{end}}`, `{{with $x := .Task}}{{$x.ID}}{{end}}`, "{{.Node}}",
		`{{$x := "a"}}{{range .Service.Labels}}{{$x = join $x $x}}{{break}}{{end}}`, `{{if and 1 (or 0 .)}}{{end}}`, "{{/* */}}",
	} {
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, secret bool) {
		began := time.Now()
		out, err := expand(text, secret)
		var te *spec.TemplateError
		if err != nil && !errors.As(err, &te) {
			t.Errorf("%T: %v", err, err)
		}
		if len(out) > 1<<20 || time.Since(began) > 5*time.Second {
			t.Errorf("%d bytes in %s", len(out), time.Since(began))
		}
	})
}
