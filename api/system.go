package api

import (
	"context"
	"net/http"
)

// SystemUsage is what everything takes on the disk, in bytes.
type SystemUsage struct {
	Images  []ImageUsage  `json:"images"`
	Volumes []VolumeUsage `json:"volumes"`
	Stacks  []StackUsage  `json:"stacks"`
	// ImagesTotal counts each layer once.
	ImagesTotal int64 `json:"images_total"`
}

// ImageUsage is what one image takes: unpacked files and blobs.
type ImageUsage struct {
	Digest     string   `json:"digest"`
	ID         string   `json:"id"`
	References []string `json:"references,omitempty"`
	Shared     int64    `json:"shared"` // of layers that other images have too
	Unique     int64    `json:"unique"` // what its removal frees
	Stacks     []string `json:"stacks,omitempty"`
	// Needed images stay with `image prune --all`: a kept revision or a task
	// needs them.
	Needed bool `json:"needed,omitempty"`
}

// VolumeUsage is what one volume takes. A volume that shows a folder or a
// device from elsewhere (driver options) counts 0.
type VolumeUsage struct {
	Name      string   `json:"name"`
	Stack     string   `json:"stack,omitempty"`
	Anonymous bool     `json:"anonymous,omitempty"`
	Bytes     int64    `json:"bytes"`
	UsedBy    []string `json:"used_by,omitempty"`
}

// StackUsage is what one stack takes.
type StackUsage struct {
	Stack      string `json:"stack"`
	Images     int64  `json:"images"`     // whole images, shared layers included
	Unique     int64  `json:"unique"`     // layers that no other image has
	Containers int    `json:"containers"` // tasks that are kept, running or not
	Written    int64  `json:"written"`    // what the containers wrote beside volumes
	Logs       int64  `json:"logs"`
	Volumes    int64  `json:"volumes"`
}

// SystemUsage tells what takes how much space. The agent walks through the
// volumes: with many files it takes its time.
func (c *Client) SystemUsage(ctx context.Context) (SystemUsage, error) {
	return call[SystemUsage](ctx, c, request{method: http.MethodGet, path: "/v1/system/df"})
}
