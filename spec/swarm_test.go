package spec_test

import (
	"strings"
	"testing"

	"berth/spec"
)

// TestLoad_SwarmStack_IsAccepted: what `docker stack deploy` takes, with a
// line for what has no effect here.
func TestLoad_SwarmStack_IsAccepted(t *testing.T) {
	r := load(t, spec.Options{Dir: write(t, `
-- compose.yaml --
version: "3.8"
services:
  web:
    image: nginx:1.27
    ports:
      - {target: 80, published: 8080, protocol: tcp, mode: ingress}
      - {target: 81, published: 8081, mode: host}
    networks: [edge, back]
    configs: [{source: site, target: /etc/site, mode: 0444}]
    deploy:
      mode: replicated
      replicas: 3
      endpoint_mode: dnsrr
      update_config: {parallelism: 2, delay: 5s, order: start-first, failure_action: rollback}
      restart_policy: {condition: on-failure, delay: 2s, max_attempts: 3, window: 60s}
      resources: {limits: {cpus: "0.5", memory: 64M}}
      labels: {traefik.enable: "true"}
networks:
  edge: {external: true, name: proxy}
  back: {driver: overlay, attachable: true}
configs:
  site: {content: "hello {{.Service.Name}}", template_driver: golang}
`)})
	web := r.Stack.Services["web"]
	if web.Replicas != 3 || len(web.Ports) != 2 || web.Resources.Memory != 64<<20 {
		t.Errorf("%+v", web)
	}
	if n := r.Stack.Networks["edge"]; !n.External || n.Name != "proxy" {
		t.Errorf("%+v", n)
	}
	if !r.Stack.Configs["site"].Template {
		t.Error("template_driver: golang makes no template")
	}
	said := map[string]string{}
	for _, d := range r.Diagnostics {
		said[d.Path] = d.Error() + "; " + d.Hint
	}
	for path, want := range map[string]string{
		"version": "compose.yaml:1:1: version is obsolete and has no effect",
	} {
		if !strings.HasPrefix(said[path], want) {
			t.Errorf("%s: %q, want %q", path, said[path], want)
		}
	}
}
