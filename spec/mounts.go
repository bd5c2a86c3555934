package spec

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
)

// mounts lists `volumes`, then `tmpfs`, in the order of the file, then what
// `volumes_from` adds.
func (l *loading) mounts(s types.ServiceConfig) []Mount {
	out := ownMounts(s)
	for _, from := range s.VolumesFrom {
		name, readOnly := cutVolumesFrom(from)
		source, ok := l.project.Services[name]
		if !ok {
			continue // a container, of another stack
		}
		for _, m := range l.mounts(source) {
			if m.Type == MountTmpfs || m.Type == MountImage ||
				slices.ContainsFunc(out, func(o Mount) bool { return o.Target == m.Target }) {
				continue
			}
			if m.Type == MountVolume && m.Source == "" && m.From == "" {
				m.From = name
			}
			m.ReadOnly = m.ReadOnly || readOnly
			out = append(out, m)
		}
	}
	return out
}

// cutVolumesFrom takes the mode off an entry of volumes_from.
func cutVolumesFrom(from string) (name string, readOnly bool) {
	if name, ok := strings.CutSuffix(from, ":ro"); ok {
		return name, true
	}
	return strings.TrimSuffix(from, ":rw"), false
}

// VolumesFromContainer reads an entry of Service.VolumesFrom that names a
// container: "container:NAME" or "container:NAME:ro".
func VolumesFromContainer(from string) (name string, readOnly, ok bool) {
	from, readOnly = cutVolumesFrom(from)
	name, ok = strings.CutPrefix(from, types.ContainerPrefix)
	return name, readOnly, ok
}

// VolumesFromService is the service of an entry of Service.VolumesFrom that
// names one.
func VolumesFromService(from string) (name string, readOnly, ok bool) {
	name, readOnly = cutVolumesFrom(from)
	return name, readOnly, !strings.HasPrefix(name, types.ContainerPrefix)
}

func ownMounts(s types.ServiceConfig) []Mount {
	var out []Mount
	for _, v := range s.Volumes {
		out = append(out, mount(v))
	}
	for _, t := range s.Tmpfs {
		m, _ := tmpfs(t)
		out = append(out, m)
	}
	return out
}

func mount(v types.ServiceVolumeConfig) Mount {
	m := Mount{Type: v.Type, Source: v.Source, Target: cleanTarget(v.Target), ReadOnly: v.ReadOnly}
	switch {
	case v.Type == types.VolumeTypeBind:
		m.CreateHostPath = v.Bind == nil // as the specification has it
		if b := v.Bind; b != nil {
			m.CreateHostPath, m.Propagation, m.SELinux = bool(b.CreateHostPath), b.Propagation, b.SELinux
			if m.Recursive = b.Recursive; m.Recursive == "enabled" {
				m.Recursive = ""
			}
		}
	case v.Type == types.VolumeTypeVolume && v.Volume != nil:
		m.NoCopy, m.Subpath, m.Labels = v.Volume.NoCopy, v.Volume.Subpath, filled(v.Volume.Labels)
	case v.Type == types.VolumeTypeTmpfs && v.Tmpfs != nil:
		m.TmpfsSize, m.TmpfsMode = int64(v.Tmpfs.Size), v.Tmpfs.Mode
	case v.Type == types.VolumeTypeImage:
		m.ReadOnly = true
		if v.Image != nil {
			m.Subpath = v.Image.SubPath
		}
	}
	return m
}

func cleanTarget(t string) string {
	if t == "" {
		return ""
	}
	return path.Clean("/" + t)
}

// tmpfs reads the short form: PATH[:OPTION,…], the options of mount(8).
func tmpfs(entry string) (Mount, error) {
	target, options, _ := strings.Cut(entry, ":")
	m := Mount{Type: MountTmpfs, Target: cleanTarget(target)}
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(o), "=")
		switch key {
		case "", "rw":
		case "ro":
			m.ReadOnly = true
		case "size":
			n, err := units.RAMInBytes(value)
			if err != nil || strings.HasSuffix(value, "%") {
				return m, fmt.Errorf("size %q of tmpfs %s is no size; write it as 64m", value, target)
			}
			m.TmpfsSize = n
		case "mode":
			n, err := strconv.ParseUint(value, 8, 12)
			if err != nil {
				return m, fmt.Errorf("mode %q of tmpfs %s is no octal number; write it as 1777", value, target)
			}
			m.TmpfsMode = uint32(n)
		default:
			m.TmpfsOptions = append(m.TmpfsOptions, strings.TrimSpace(o))
		}
	}
	return m, nil
}

// fileMount completes a short-form config or secret; dir is where a target
// without a leading slash lies.
func fileMount(c types.FileReferenceConfig, dir string) FileMount {
	target := c.Target
	if target == "" {
		target = c.Source
	}
	if !path.IsAbs(target) {
		target = dir + target
	}
	m := FileMount{Source: c.Source, Target: path.Clean(target), UID: c.UID, GID: c.GID, Mode: 0o444}
	if c.Mode != nil {
		m.Mode = uint32(*c.Mode) & 0o7777
	}
	m.OnChange, _ = onChange(c.Extensions)
	m.Env, _ = c.Extensions[keyEnv].(string)
	return m
}

// port converts one published port; the loader has expanded ranges of
// targets.
func port(p types.ServicePortConfig) (Port, error) {
	out := Port{
		Name: p.Name, HostIP: p.HostIP, Protocol: strings.ToLower(p.Protocol), AppProtocol: p.AppProtocol,
	}
	if out.Protocol == "" {
		out.Protocol = "tcp"
	}
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, out.Protocol) {
		return out, fmt.Errorf("protocol %q is not tcp, udp or sctp", p.Protocol)
	}
	if p.Mode != "ingress" {
		out.Mode = p.Mode
	}
	if p.Target < 1 || p.Target > math.MaxUint16 {
		return out, fmt.Errorf("target port %d is not between 1 and 65535", p.Target)
	}
	out.Target = uint16(p.Target)
	if p.Published == "" {
		return out, nil
	}
	from, to, ranged := strings.Cut(p.Published, "-")
	first, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return out, fmt.Errorf("published port %q is not between 0 and 65535", p.Published)
	}
	out.Published = uint16(first)
	if ranged {
		last, err := strconv.ParseUint(to, 10, 16)
		if err != nil || last < first {
			return out, fmt.Errorf("published port %q is not a range of ports", p.Published)
		}
		if last > first {
			out.PublishedEnd = uint16(last)
		}
	}
	return out, nil
}

// placeMounts adds the places of mounts to the positions of st, by target:
// "services.web.mounts./data". Of several entries for one target the last
// counts, as it does for the loader.
func (l *loading) placeMounts(st *Stack) {
	for name, s := range st.Services {
		for _, attr := range []string{"volumes", "tmpfs"} {
			for i := 0; ; i++ {
				p, ok := l.places[fmt.Sprintf("services.%s.%s.%d", name, attr, i)]
				if !ok {
					break
				}
				target := writtenTarget(p)
				if slices.ContainsFunc(s.Mounts, func(m Mount) bool { return m.Target == target }) {
					st.Positions["services."+name+".mounts."+target] = p.position()
				}
			}
		}
	}
}

// writtenTarget is the target of an entry of volumes or tmpfs, as far as it
// can be read without variables.
func writtenTarget(p place) string {
	n := resolve(p.value)
	if t := get(n, "target"); t != nil {
		return cleanTarget(t.Value)
	}
	if v, err := format.ParseVolume(n.Value); err == nil && v.Target != "" {
		return cleanTarget(v.Target)
	}
	return ""
}
