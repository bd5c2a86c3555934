package spec_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/spec"
)

func TestLoad_PullRefreshAfter_IsTheAgeOfThePolicy(t *testing.T) {
	for file, want := range map[string]string{
		"pull_policy: refresh\n    pull_refresh_after: 3d": "every_3d",
		"pull_policy: refresh":                             "always",
		"pull_policy: missing\n    pull_refresh_after: 3d": "missing",
	} {
		st := loadService(t, file, "")
		if got := st.Services["web"].PullPolicy; got != want {
			t.Errorf("%s: pull policy %q; want %q", file, got, want)
		}
	}
}

func TestLoad_Models_AreVariables(t *testing.T) {
	st := loadService(t, `environment: {OWN: kept}
    models: {chat-llm: , embed: {endpoint_var: OWN, model_var: EMBED}, elsewhere: }`,
		`models:
  chat-llm: {model: ai/small, x-endpoint: "http://llm:1/v1"}
  embed: {model: ai/embed, x-endpoint: "http://llm:2/v1"}
  elsewhere: {model: ai/other}
`)
	want := map[string]string{
		"CHAT_LLM_URL": "http://llm:1/v1", "CHAT_LLM_MODEL": "ai/small", "OWN": "kept", "EMBED": "ai/embed",
	}
	if diff := cmp.Diff(want, st.Services["web"].Environment); diff != "" {
		t.Error(diff)
	}
}

// loadService loads a stack with one service, web.
func loadService(t *testing.T, attributes, rest string) *spec.Stack {
	t.Helper()
	return loadText(t, t.TempDir(), "services:\n  web:\n    image: busybox\n    "+attributes+"\n"+rest)
}
