package cli

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"berth/api"
)

// The rows of lists, for Go templates: fields as Docker names them.

// PSRows are tasks with the fields of `docker compose ps`.
func PSRows(tasks []api.Task, now time.Time) Rows[psRow] {
	rows := Rows[psRow]{Columns: []string{"Name"}}
	for _, t := range tasks {
		rows.Add(newPSRow(t, now))
	}
	return rows
}

// LSRows are stacks with the fields of `docker compose ls`.
func LSRows(stacks []api.StackSummary) Rows[lsRow] {
	rows := Rows[lsRow]{Columns: []string{"Name"}}
	for _, s := range stacks {
		rows.Add(lsRow{Name: s.Name, Status: StackState(s), ConfigFiles: strings.Join(s.Files, ","), Revision: s.Revision})
	}
	return rows
}

// imageRow is an image with the fields of `docker image ls`.
type imageRow struct {
	ID, Repository, Tag, Digest, CreatedSince, CreatedAt, Size, Platform string
}

// ImageRows are one row per reference.
func ImageRows(images []api.Image, now time.Time, whole bool) Rows[imageRow] {
	rows := Rows[imageRow]{Columns: []string{"ID"}}
	for _, i := range images {
		refs := i.References
		if len(refs) == 0 {
			refs = []string{""}
		}
		for _, ref := range refs {
			repository, tag := splitReference(ref)
			rows.Add(imageRow{
				ID: ShortID(i.ID, whole), Repository: cmp.Or(repository, "<none>"), Tag: cmp.Or(tag, "<none>"), Digest: i.Digest,
				CreatedSince: ago(i.Created, now), CreatedAt: i.Created.Format(time.RFC3339), Size: size(i.Size), Platform: i.Platform,
			})
		}
	}
	return rows
}

// volumeRow is a volume with the fields of `docker volume ls`.
type volumeRow struct{ Name, Driver, Scope, Mountpoint, Labels, Stack, Links string }

// VolumeRows are one row per volume; Links is how many containers use it.
func VolumeRows(volumes []api.Volume) Rows[volumeRow] {
	rows := Rows[volumeRow]{Columns: []string{"Name"}}
	for _, v := range volumes {
		rows.Add(volumeRow{v.Name, v.Driver, "local", v.Mountpoint, joinMap(v.Labels), v.Stack, strconv.Itoa(len(v.UsedBy))})
	}
	return rows
}

// networkRow is a network with the fields of `docker network ls`.
type networkRow struct{ ID, Name, Driver, Scope, Internal, Labels, CreatedAt, Stack string }

// NetworkRows are one row per network.
func NetworkRows(networks []api.Network) Rows[networkRow] {
	rows := Rows[networkRow]{Columns: []string{"Name"}}
	for _, n := range networks {
		rows.Add(networkRow{n.ID, n.Name, n.Driver, "local", strconv.FormatBool(n.Internal), joinMap(n.Labels), n.CreatedAt.Format(time.RFC3339), n.Stack})
	}
	return rows
}
