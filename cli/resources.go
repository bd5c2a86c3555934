package cli

import (
	"cmp"
	"io"
	"strconv"
	"strings"
	"time"

	"berth/api"
)

// WriteImages writes images as a table, one row per reference.
func WriteImages(w io.Writer, images []api.Image, now time.Time, whole bool) error {
	t := Table{Head: []string{"REPOSITORY", "TAG", "IMAGE ID", "PLATFORM", "CREATED", "SIZE"}}
	for _, image := range images {
		refs := image.References
		if len(refs) == 0 {
			refs = []string{""}
		}
		for _, ref := range refs {
			repository, tag := splitReference(ref)
			t.Add(cmp.Or(repository, "<none>"), cmp.Or(tag, "<none>"), ShortID(image.ID, whole), image.Platform, ago(image.Created, now), size(image.Size))
		}
	}
	return t.Write(w)
}

// splitReference splits "registry:5000/name:tag"; a digest counts as no tag.
func splitReference(ref string) (repository, tag string) {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, ""
}

// ShortID is the first 12 digits of an id or digest.
func ShortID(id string, whole bool) string {
	if whole {
		return id
	}
	_, digits, found := strings.Cut(id, ":")
	if !found {
		digits = id
	}
	return digits[:min(12, len(digits))]
}

// WriteVolumes writes volumes as a table.
func WriteVolumes(w io.Writer, volumes []api.Volume) error {
	t := Table{Head: []string{"NAME", "DRIVER", "STACK", "USED BY"}}
	for _, v := range volumes {
		t.Add(v.Name, v.Driver, v.Stack, strings.Join(v.UsedBy, ", "))
	}
	return t.Write(w)
}

// WriteNetworks writes networks as a table.
func WriteNetworks(w io.Writer, networks []api.Network) error {
	t := Table{Head: []string{"NAME", "DRIVER", "STACK", "SUBNETS", "BRIDGE"}}
	for _, n := range networks {
		t.Add(n.Name, n.Driver, n.Stack, strings.Join(n.Subnets, ", "), n.Bridge)
	}
	return t.Write(w)
}

// WriteContents writes secrets or configs of the store as a table.
func WriteContents(w io.Writer, contents []api.Content, now time.Time) error {
	t := Table{Head: []string{"NAME", "STACK", "VERSION", "CHANGED", "USED BY"}}
	for _, c := range contents {
		changed := c.CreatedAt
		for _, v := range c.Versions {
			if v.Number == c.Current {
				changed = v.CreatedAt
			}
		}
		t.Add(c.Name, cmp.Or(c.Stack, "(all)"), strconv.FormatUint(c.Current, 10), ago(changed, now), strings.Join(c.UsedBy, ", "))
	}
	return t.Write(w)
}

// Freed words how much space went.
func Freed(bytes int64) string { return size(bytes) + " freed" }
