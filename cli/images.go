package cli

import (
	"cmp"
	"io"
	"time"

	"berth/api"
)

// StackImage is the image of one container, as `docker compose images
// --format json` prints it.
type StackImage struct {
	ID            string
	ContainerName string
	Repository    string
	Tag           string
	Platform      string
	Size          int64
	Created       *time.Time `json:",omitempty"`
}

// StackImages gives each task's image. One that is not in the store any more
// is known by its digest only.
func StackImages(tasks []api.Task, all []api.Image) []StackImage {
	known := map[string]api.Image{}
	for _, image := range all {
		known[image.Digest] = image
	}
	rows := []StackImage{}
	for _, t := range tasks {
		repository, tag := splitReference(t.Image)
		row := StackImage{ID: t.Digest, ContainerName: t.Name, Repository: cmp.Or(repository, "<none>"), Tag: tag}
		if row.Tag == "" {
			row.Tag = "latest"
		}
		if image, ok := known[t.Digest]; ok {
			row.ID, row.Platform, row.Size = image.ID, image.Platform, image.Size
			if !image.Created.IsZero() {
				row.Created = &image.Created
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// WriteStackImages writes them as a table.
func WriteStackImages(w io.Writer, rows []StackImage, now time.Time) error {
	t := Table{Head: []string{"CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"}}
	for _, r := range rows {
		created := "N/A"
		if r.Created != nil {
			created = ago(*r.Created, now)
		}
		t.Add(r.ContainerName, r.Repository, r.Tag, r.Platform, ShortID(r.ID, false), size(r.Size), created)
	}
	return t.Write(w)
}

// stepColumns is where the CREATED BY column is cut, as Docker does.
const stepColumns = 45

// WriteHistorySteps writes the history of an image as a table.
func WriteHistorySteps(w io.Writer, steps []api.ImageStep, now time.Time, whole bool) error {
	t := Table{Head: []string{"LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"}}
	for _, s := range steps {
		by, layer := s.CreatedBy, cmp.Or(s.Layer, "<none>")
		if !whole {
			by, layer = cut(by, stepColumns), ShortID(layer, false)
		}
		t.Add(layer, ago(s.Created, now), by, size(s.Size), s.Comment)
	}
	return t.Write(w)
}
