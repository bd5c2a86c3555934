package e2e_test

import (
	"testing"

	"berth/testbed"
)

// TestPorts_OneReplica_NeverRefuse: a published port answers while its only
// task is restarted, scaled and brought back; and one that can't run twice lets
// its clients wait. The stack is up for the whole story, and the clients never
// stop.
func TestPorts_OneReplica_NeverRefuse(t *testing.T) {
	testbed.NeedKernel(t)
	m := newMachine(t)
	s := m.stack(t, "ports", `
services:
  web:
    image: berth-testbed/echo
    ports: ["8093:8080"]
    healthcheck: {test: ["CMD", "/app", "-check"], interval: 1s}
    x-drain: 2s
    deploy: {update_config: {monitor: 0s}}
  writer:
    image: berth-testbed/echo
    volumes: [data:/data]
    ports: ["8094:8080"]
    healthcheck: {test: ["CMD", "/app", "-check"], interval: 1s}
    x-drain: 2s
    deploy: {update_config: {monitor: 0s}}
volumes: {data: {}}
`)
	s.up(t)
	web, writer := pound(t, "http://127.0.0.1:8093/"), pound(t, "http://127.0.0.1:8094/")
	for _, args := range [][]string{
		{"restart", "web"},
		{"scale", "web=3"},
		{"scale", "web=1"},
		{"up", "-d", "--force-recreate", "web"},
		{"rollback"},
		{"restart", "writer"},
		{"restart"},
	} {
		if r := s.berth(t, args...); r.code != 0 {
			t.Errorf("%v: %s", args, r)
		}
	}
	for name, l := range map[string]*load{"web": web, "writer": writer} {
		l.end()
		if len(l.answers()) == 0 {
			t.Errorf("%s answered nothing", name)
		}
		for _, f := range l.failures() {
			t.Errorf("%s: %s", name, f)
		}
	}
}
