package cli

import (
	"slices"
	"testing"
)

func TestAgentEnviron_WhatSecretsComeFrom_IsNotInherited(t *testing.T) {
	got := agentEnviron([]string{"PATH=/bin", "DB_PASS=swordfish", "https_proxy=http://p:1", "BERTH_ROOT=/r", "HOME=/root", "GOTRACEBACK=all", "HOMEPASS=x", "AWS_PROFILE=p", "BUILDKIT_HOST=tcp://b"})
	if want := []string{"PATH=/bin", "https_proxy=http://p:1", "BERTH_ROOT=/r", "HOME=/root", "GOTRACEBACK=all", "AWS_PROFILE=p", "BUILDKIT_HOST=tcp://b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
