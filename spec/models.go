package spec

import (
	"cmp"
	"net/url"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// keyEndpoint of a model is the address of what serves it: Berth runs no
// models itself, and any server that speaks a model API will do.
const keyEndpoint = "x-endpoint"

// checkModels checks the top-level models.
func (l *loading) checkModels() {
	for _, key := range sortedKeys(l.project.Models) {
		at := "models." + key
		ext := l.project.Models[key].Extensions
		for _, k := range sortedKeys(ext) {
			l.misspelt(at, k, []string{keyEndpoint})
		}
		given, ok := ext[keyEndpoint]
		if !ok {
			l.add(l.placed(Warning, at, "Berth runs no models: nothing tells the services where "+key+" is",
				"run it in a service of its own and write its address: x-endpoint: http://SERVICE:PORT/v1"))
			continue
		}
		text, _ := given.(string)
		if u, err := url.Parse(text); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			l.add(l.placedValue(Error, at+"."+keyEndpoint, "x-endpoint is no address", "write http://SERVICE:PORT/PATH"))
		}
	}
}

// modelVariables adds to env what tells a service where its models are:
// KEY_URL and KEY_MODEL, or the names that the service gives (Compose spec,
// "models"). What the user has set stays.
func (l *loading) modelVariables(env map[string]string, used map[string]*types.ServiceModelConfig) map[string]string {
	for _, key := range sortedKeys(used) {
		model := l.project.Models[key]
		endpoint, _ := model.Extensions[keyEndpoint].(string)
		if endpoint == "" {
			continue
		}
		names := types.ServiceModelConfig{}
		if used[key] != nil {
			names = *used[key]
		}
		prefix := strings.ReplaceAll(strings.ToUpper(key), "-", "_")
		if env == nil {
			env = map[string]string{}
		}
		for name, value := range map[string]string{
			cmp.Or(names.EndpointVariable, prefix+"_URL"): endpoint,
			cmp.Or(names.ModelVariable, prefix+"_MODEL"):  cmp.Or(model.Model, key),
		} {
			if _, set := env[name]; !set {
				env[name] = value
			}
		}
	}
	return env
}
