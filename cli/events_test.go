package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"berth/api"
)

func TestWriteEventJSON_HasTheFieldsOfDockerCompose_BesideOurs(t *testing.T) {
	var b strings.Builder
	e := api.Event{
		Time: time.Unix(0, 0).UTC(), Type: "task", Action: "start", Stack: "shop", Service: "web", Task: "a1b2", Name: "shop-web-1",
		Revision: 3, Attrs: map[string]string{"image": "nginx"},
	}
	if err := WriteEventJSON(&b, e); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"type": "container", "id": "a1b2", "action": "start", "service": "web", "stack": "shop", "task": "a1b2", "revision": 3.0,
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	attrs, _ := got["attributes"].(map[string]any)
	if attrs["name"] != "shop-web-1" || attrs["image"] != "nginx" || strings.Count(b.String(), `"type"`) != 1 {
		t.Error(b.String())
	}
}
