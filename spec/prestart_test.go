package spec_test

import (
	"testing"

	"berth/spec"
)

const withSteps = `
name: shop
services:
  db: {image: postgres}
  web:
    image: web
    command: serve
    environment: {A: "1"}
    depends_on: {db: {condition: service_healthy}}
    ports: ["80:80"]
    networks: {default: {aliases: [www]}}
    pre_start:
      - command: migrate
        environment: {B: "2"}
      - image: tools
        command: warm
`

func TestLoad_PreStartSteps_AreOneShotsThatTheServiceWaitsFor(t *testing.T) {
	st := loadText(t, t.TempDir(), withSteps)
	first, second, web := st.Services["web-pre-start-1"], st.Services["web-pre-start-2"], st.Services["web"]
	if !first.OneShot || first.StepOf != "web" || first.Image != "web" || (*first.Command)[0] != "migrate" ||
		first.Environment["A"] != "1" || first.Environment["B"] != "2" || first.Replicas != 1 {
		t.Errorf("first step: %+v", first)
	}
	if len(first.Ports) > 0 || len(first.Networks) != 1 || len(first.Networks[0].Aliases) > 0 {
		t.Errorf("the first step has what is the service's own: %+v", first)
	}
	if second.Image != "tools" || !waitsFor(second, "web-pre-start-1", spec.DependsCompleted) || !waitsFor(second, "db", spec.DependsHealthy) {
		t.Errorf("second step: %+v", second)
	}
	if !waitsFor(web, "web-pre-start-2", spec.DependsCompleted) {
		t.Errorf("web does not wait for its last step: %+v", web.DependsOn)
	}
	if at := st.Positions["services.web-pre-start-2.command"]; at.Line != 16 {
		t.Errorf("the second step's command is at %v", at)
	}
}

func waitsFor(s spec.Service, other, condition string) bool {
	for _, d := range s.DependsOn {
		if d.Service == other && d.Condition == condition && d.Required {
			return true
		}
	}
	return false
}
