package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"berth/api"
)

// Bytes is a size as people read it: "1.5MB".
func Bytes(n int64) string { return size(n) }

// WriteUsage writes what takes how much space: by kind, by stack and, with
// verbose, by image and volume.
func WriteUsage(w io.Writer, u api.SystemUsage, verbose bool) error {
	kinds := Table{Head: []string{"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"}}
	active := 0
	var reclaimable int64
	for _, i := range u.Images {
		if i.Needed {
			active++
		} else {
			reclaimable += i.Unique
		}
	}
	kinds.Add("Images", strconv.Itoa(len(u.Images)), strconv.Itoa(active), size(u.ImagesTotal), size(reclaimable))
	var written, logs, volumes, idle int64
	containers, used := 0, 0
	for _, s := range u.Stacks {
		containers += s.Containers
		written += s.Written
		logs += s.Logs
	}
	for _, v := range u.Volumes {
		volumes += v.Bytes
		if len(v.UsedBy) > 0 {
			used++
		} else {
			idle += v.Bytes
		}
	}
	count := strconv.Itoa(containers)
	kinds.Add("Containers", count, count, size(written), size(0))
	kinds.Add("Logs", count, count, size(logs), size(0))
	kinds.Add("Volumes", strconv.Itoa(len(u.Volumes)), strconv.Itoa(used), size(volumes), size(idle))
	stacks := Table{Head: []string{"STACK", "IMAGES", "ITS OWN", "CONTAINERS", "WRITTEN", "LOGS", "VOLUMES"}}
	for _, s := range u.Stacks {
		stacks.Add(s.Stack, size(s.Images), size(s.Unique), strconv.Itoa(s.Containers), size(s.Written), size(s.Logs), size(s.Volumes))
	}
	tables := []Table{kinds}
	if len(u.Stacks) > 0 {
		tables = append(tables, stacks)
	}
	if verbose {
		tables = append(tables, imageUsageTable(u), volumeUsageTable(u))
	}
	for i := range tables {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := tables[i].Write(w); err != nil {
			return err
		}
	}
	return nil
}

func imageUsageTable(u api.SystemUsage) Table {
	t := Table{Head: []string{"IMAGE", "IMAGE ID", "SHARED", "UNIQUE", "STACKS"}}
	for _, i := range u.Images {
		t.Add(cmp.Or(strings.Join(i.References, ", "), "<none>"), ShortID(i.ID, false), size(i.Shared), size(i.Unique), strings.Join(i.Stacks, ", "))
	}
	return t
}

func volumeUsageTable(u api.SystemUsage) Table {
	t := Table{Head: []string{"VOLUME", "STACK", "SIZE", "USED BY"}}
	for _, v := range u.Volumes {
		t.Add(v.Name, v.Stack, size(v.Bytes), strings.Join(v.UsedBy, ", "))
	}
	return t
}
