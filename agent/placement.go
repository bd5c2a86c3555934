package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/google/renameio/v2"

	"berth/spec"
)

// nodeIdentity is what placement constraints look at. The id is made once and
// kept in Root.
func nodeIdentity(cfg *Config) (*spec.Node, error) {
	path := filepath.Join(cfg.Root, "node-id")
	id, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b := make([]byte, 12)
		if _, err := rand.Read(b); err != nil {
			return nil, fmt.Errorf("make the node's id: %w", err)
		}
		id = []byte(hex.EncodeToString(b))
		if err := renameio.WriteFile(path, append(id, '\n'), 0o644); err != nil {
			return nil, fmt.Errorf("keep the node's id: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("read the node's id: %w", err)
	}
	n := &spec.Node{
		ID: strings.TrimSpace(string(id)), Role: "manager", OS: goruntime.GOOS, Arch: goruntime.GOARCH, Labels: cfg.Labels,
	}
	if n.Hostname, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("find the host's name: %w", err)
	}
	return n, nil
}

// fits says how many tasks of s may run on n, and why not all; attr is the
// attribute of deploy.placement that says so.
func fits(n *spec.Node, s *spec.Service) (most int, why, attr string) {
	for i, text := range s.Constraints {
		c, err := spec.ParseConstraint(text)
		if err != nil {
			return 0, err.Error(), fmt.Sprintf("constraints.%d", i) // Load has refused it
		}
		ok, has := c.Holds(n)
		if ok {
			continue
		}
		if has == "" {
			has = "nothing"
		}
		return 0, fmt.Sprintf("%s does not hold: %s is %s here", strings.TrimSpace(text), c.Key, has), fmt.Sprintf("constraints.%d", i)
	}
	if s.MaxPerNode > 0 && s.Replicas > s.MaxPerNode {
		return s.MaxPerNode, fmt.Sprintf("max_replicas_per_node is %d, and there is one node", s.MaxPerNode), "max_replicas_per_node"
	}
	return s.Replicas, "", ""
}
