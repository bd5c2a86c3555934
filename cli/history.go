package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/api"
)

// WriteHistory writes revisions as a table. The image column has those of the
// services that changed: the others are as in the row below; the last row has
// all.
func WriteHistory(w io.Writer, revisions []api.Revision, now time.Time) error {
	t := Table{Head: []string{"REVISION", "STATE", "CREATED", "BY", "CHANGED", "IMAGES", "REASON"}}
	for i, r := range revisions {
		if i == len(revisions)-1 { // nothing older to compare it with
			r.Changes = slices.Sorted(maps.Keys(r.Images))
		}
		t.Add(strconv.FormatUint(r.Number, 10), revisionState(r), ago(r.CreatedAt, now), r.Actor,
			strings.Join(r.Changes, ", "), revisionImages(r), r.Reason)
	}
	return t.Write(w)
}

// revisionState says what a revision is now and how its rollout ended.
func revisionState(r api.Revision) string {
	var words []string
	if r.Current {
		words = append(words, "current")
	}
	if r.Stable {
		words = append(words, "stable")
	}
	// Of a stable revision it goes without saying that it was completed.
	if state := RolloutState(r.State); state != "" && (r.State != api.RolloutComplete || !r.Stable) {
		words = append(words, state)
	}
	return strings.Join(words, ", ")
}

// revisionImages are the images of the services that changed, each once.
func revisionImages(r api.Revision) string {
	var texts []string
	for _, service := range slices.Sorted(maps.Keys(r.Images)) {
		if !slices.Contains(r.Changes, service) {
			continue
		}
		image := r.Images[service]
		text := image.Reference
		if d := shortDigest(image.Digest); d != "" {
			text += " (" + d + ")"
		}
		if !image.Here {
			text += ", not here"
		}
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

// shortDigest is as much of a digest as tells images apart: "12ab34c".
func shortDigest(digest string) string {
	_, sum, _ := strings.Cut(digest, ":")
	return fmt.Sprintf("%.7s", sum)
}
