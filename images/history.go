package images

import (
	"bytes"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Step is one line of an image's history, as its config tells it.
type Step struct {
	Created   time.Time `json:"created,omitzero"`
	CreatedBy string    `json:"created_by"`
	Comment   string    `json:"comment,omitempty"`
	Size      int64     `json:"size"`            // bytes of the layer's files; 0 for a step without a layer
	Layer     string    `json:"layer,omitempty"` // diff id
}

// History tells how an image came to be, the last step first. Layers that the
// config says nothing of are steps without words.
func (s *Store) History(ref string) ([]Step, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	rec, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	cf, err := v1.ParseConfigFile(bytes.NewReader(rec.RawConfig))
	if err != nil {
		return nil, fmt.Errorf("config of %s: %w", ref, err)
	}
	var steps []Step
	next := 0
	layer := func() (string, int64) {
		if next >= len(rec.Keys) {
			return "", 0
		}
		next++
		if l := s.layers[rec.Keys[next-1]]; l != nil {
			return l.DiffID, l.Bytes
		}
		return rec.Layers[next-1], 0
	}
	for _, h := range cf.History {
		step := Step{Created: h.Created.Time, CreatedBy: h.CreatedBy, Comment: h.Comment}
		if !h.EmptyLayer {
			step.Layer, step.Size = layer()
		}
		steps = append(steps, step)
	}
	for next < len(rec.Keys) {
		step := Step{}
		step.Layer, step.Size = layer()
		steps = append(steps, step)
	}
	for i, j := 0, len(steps)-1; i < j; i, j = i+1, j-1 {
		steps[i], steps[j] = steps[j], steps[i]
	}
	return steps, nil
}

// Usage is what one image takes on the disk: unpacked files and blobs.
type Usage struct {
	Digest string
	Shared int64 // of layers that other images have too
	Unique int64 // what its removal would free
}

// Usage tells what each image takes, and what all of them take together.
func (s *Store) Usage() (list []Usage, total int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	users := map[string]int{}
	for _, rec := range s.images {
		for key := range distinct(rec.Keys) {
			users[key]++
		}
	}
	for _, l := range s.layers {
		total += l.Bytes + l.BlobSize
	}
	for digest, rec := range s.images {
		u := Usage{Digest: digest}
		for key := range distinct(rec.Keys) {
			l := s.layers[key]
			switch {
			case l == nil:
			case users[key] > 1:
				u.Shared += l.Bytes + l.BlobSize
			default:
				u.Unique += l.Bytes + l.BlobSize
			}
		}
		list = append(list, u)
	}
	return list, total
}

func distinct(keys []string) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, k := range keys {
		set[k] = true
	}
	return set
}
