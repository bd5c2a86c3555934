package cli

import (
	"strings"
	"testing"

	"berth/spec"
)

func TestPlanAdoption_OrderVolumesAndWarnings(t *testing.T) {
	stack := &spec.Stack{
		Name: "shop",
		Services: map[string]spec.Service{
			"web":   {DependsOn: []spec.Dependency{{Service: "db"}, {Service: "setup"}}, Mounts: []spec.Mount{{Type: spec.MountVolume, Source: "data"}}},
			"db":    {Mounts: []spec.Mount{{Type: spec.MountVolume, Source: "data"}, {Type: spec.MountVolume, Source: "far"}, {Type: spec.MountVolume, Source: "nfs"}}},
			"setup": {Image: "setup:1"},
			"other": {},
		},
		Volumes: map[string]spec.Volume{"data": {Name: "shop_data"}, "far": {Name: "shop_far"}, "nfs": {Name: "shop_nfs"}},
	}
	of := func(service string, more ...string) DockerContainer {
		c := DockerContainer{ID: service, Image: service + ":v1", State: "running", Labels: map[string]string{labelService: service}}
		for _, name := range more {
			c.Mounts = append(c.Mounts, DockerMount{Type: "volume", Name: name, Destination: "/anon"})
		}
		return c
	}
	once := of("web")
	once.Labels[labelOneOff] = "True"
	plan := PlanAdoption(stack, []DockerContainer{of("web"), of("db", "0123456789abcdef"), of("gone"), once}, []DockerVolume{
		{Name: "shop_data", Driver: "local", Mountpoint: "/d"},
		{Name: "shop_far", Driver: "cloud"},
		{Name: "shop_nfs", Driver: "local", Options: map[string]string{"type": "nfs"}},
	})
	var got []string
	for _, s := range plan.Services {
		text := s.Name + " " + s.Image
		for _, v := range s.Volumes {
			text += " " + v.Name
		}
		got = append(got, text)
	}
	if want := "db db:v1 shop_data|setup setup:1|web web:v1"; strings.Join(got, "|") != want {
		t.Errorf("%s, want %s", strings.Join(got, "|"), want)
	}
	for _, want := range []string{"container gone is of service gone", "shop_far has driver cloud", "anonymous volume, which stays with Docker (0123456789ab…)"} {
		if !strings.Contains(strings.Join(plan.Warnings, "\n"), want) {
			t.Errorf("no warning %q in %q", want, plan.Warnings)
		}
	}
	if len(plan.Warnings) != 3 || len(plan.Services[2].Containers) != 1 {
		t.Errorf("%q; web has %d containers", plan.Warnings, len(plan.Services[2].Containers))
	}
}

func TestDocker_OnlyThisMachine(t *testing.T) {
	if _, err := NewDocker("tcp://10.0.0.1:2375"); err == nil {
		t.Error("an engine elsewhere is taken")
	}
	d, err := NewDocker("unix:///nosuch/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Containers(t.Context(), "shop"); err == nil || strings.Contains(err.Error(), "http://") {
		t.Errorf("%v", err)
	}
}
