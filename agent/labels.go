package agent

import (
	"maps"
	"strconv"

	"berth/store"
)

// labels are the service's own and those by which tools that know Docker
// Compose find a container's project, service and number.
func labels(t *store.Task) map[string]string {
	out := map[string]string{}
	maps.Copy(out, t.Spec.Labels)
	maps.Copy(out, map[string]string{
		"com.docker.compose.project":          t.Stack,
		"com.docker.compose.service":          t.Service,
		"com.docker.compose.container-number": strconv.Itoa(t.Slot),
		"com.docker.compose.config-hash":      t.Key,
		"com.docker.compose.image":            t.Digest,
		"com.docker.compose.oneoff":           "False",
		"sh.berth.task":                       t.ID,
		"sh.berth.revision":                   strconv.FormatUint(t.Revision, 10),
	})
	if t.OneOff != nil {
		out["com.docker.compose.oneoff"] = "True"
		out["com.docker.compose.container-number"] = "1"
		out["com.docker.compose.slug"] = t.ID
	}
	return out
}
