package images

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestPush_ToARegistry_HasTheSameDigest_AndIsPulledBack(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	s := newStore(t, reg)
	img := pull(t, s, "web:v1")
	to := reg.host() + "/mine/web:v2"
	if err := s.Tag(to, img.Digest); err != nil {
		t.Fatal(err)
	}
	var told []Progress
	digest, err := s.Push(t.Context(), to, PullOptions{Auth: noAuth, Progress: func(p Progress) { told = append(told, p) }})
	if err != nil || digest != img.Digest {
		t.Fatalf("%s, %v; want %s", digest, err, img.Digest)
	}
	if len(told) == 0 || told[len(told)-1].Status != statusDone {
		t.Errorf("progress %v", told)
	}
	other := newStore(t, reg)
	if got := pull(t, other, to); got.ID != img.ID {
		t.Errorf("pulled back %s, want %s", got.ID, img.ID)
	}
	if d, err := other.Digest(t.Context(), to, PullOptions{Auth: noAuth}); err != nil || d != img.Digest {
		t.Errorf("digest %s, %v; want %s", d, err, img.Digest)
	}
}

func TestPush_WhatCanNotBePushed_IsToldInOneLine(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	s := newStore(t, reg)
	img := pull(t, s, "web:v1")
	private := reg.host() + "/mine/web:v2"
	if err := s.Tag(private, img.Digest); err != nil {
		t.Fatal(err)
	}
	reg.break_(wantBasic("me", "secret"))
	for ref, want := range map[string]error{
		private:                   ErrUnauthorized,
		reg.host() + "/nothing:1": ErrNotFound,
		"web@" + img.Digest:       ErrReference,
		"UPPER":                   ErrReference,
	} {
		_, err := s.Push(t.Context(), ref, PullOptions{Auth: noAuth})
		if !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("push %s: %v, want %v", ref, err, want)
		}
	}
	_, err := s.Push(t.Context(), private, PullOptions{Auth: func(host string) (string, string, bool) {
		return "me", "secret", host == reg.host()
	}})
	if err != nil {
		t.Errorf("with a password: %v", err)
	}
}

func TestLogin_AsksTheRegistry(t *testing.T) {
	reg := newRegistry(t)
	reg.break_(wantBasic("me", "secret"))
	s := newStore(t, reg)
	if err := s.Login(t.Context(), reg.host(), "me", "secret"); err != nil {
		t.Error(err)
	}
	err := s.Login(t.Context(), reg.host(), "me", "wrong")
	if !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
	reg.break_(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	if err := s.Login(t.Context(), reg.host(), "me", "secret"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a broken registry: %v", err)
	}
	if err := s.Login(t.Context(), "not a host/", "me", "secret"); !errors.Is(err, ErrReference) {
		t.Errorf("no host: %v", err)
	}
}

func TestHistory_NamesEveryLayer_TheLastFirst(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	s := newStore(t, reg)
	img := pull(t, s, "web:v1")
	steps, err := s.History("web:v1")
	if err != nil {
		t.Fatal(err)
	}
	var layers []string
	for _, step := range steps {
		if step.Layer != "" {
			layers = append([]string{step.Layer}, layers...)
		}
	}
	if strings.Join(layers, " ") != strings.Join(img.Layers, " ") {
		t.Errorf("layers %v, want %v", layers, img.Layers)
	}
	if _, err := s.History("nosuch"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestUsage_LayersOfTwoImages_AreShared(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "library/web:v1", twoLayers(t))
	reg.push(t, "library/web:v2", appended(t, twoLayers(t), layerOf(t, file("more", "some more"))))
	s := newStore(t, reg)
	one := pull(t, s, "web:v1")
	list, total := s.Usage()
	if len(list) != 1 || list[0].Shared != 0 || list[0].Unique != total || total == 0 {
		t.Fatalf("one image: %+v of %d", list, total)
	}
	pull(t, s, "web:v2")
	list, sum := s.Usage()
	for _, u := range list {
		if u.Shared != total || (u.Unique == 0) != (u.Digest == one.Digest) {
			t.Errorf("%+v; the first took %d", u, total)
		}
	}
	if sum <= total {
		t.Errorf("together %d, the first alone %d", sum, total)
	}
}

func appended(t *testing.T, img v1.Image, l v1.Layer) v1.Image {
	t.Helper()
	out, err := mutate.AppendLayers(img, l)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
