package spec

import (
	"cmp"
	"math"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
)

// resources takes deploy.resources.limits over the short keys; check has made
// sure that they do not contradict each other.
func (l *loading) resources(at string, s types.ServiceConfig) Resources {
	r := Resources{
		NanoCPUs: nanoCPUs(s.CPUS), Memory: int64(s.MemLimit), MemoryReservation: int64(s.MemReservation),
		MemorySwap: int64(s.MemSwapLimit), Pids: s.PidsLimit, CPUShares: s.CPUShares,
		CPUQuota: s.CPUQuota, CPUPeriod: s.CPUPeriod, Cpuset: s.CPUSet, OomKillDisable: s.OomKillDisable,
		CPURTPeriod: s.CPURTPeriod, CPURTRuntime: s.CPURTRuntime,
	}
	if l.wrote(at+".mem_swappiness") || s.MemSwappiness != 0 {
		n := int64(s.MemSwappiness)
		r.MemorySwappiness = &n
	}
	if s.Deploy == nil {
		return r
	}
	if reserved := s.Deploy.Resources.Reservations; reserved != nil {
		r.MemoryReservation = cmp.Or(int64(reserved.MemoryBytes), r.MemoryReservation)
		r.CPUReservation = nanoCPUs(reserved.NanoCPUs.Value())
	}
	if s.Deploy.Resources.Limits == nil {
		return r
	}
	limits := s.Deploy.Resources.Limits
	r.NanoCPUs = cmp.Or(nanoCPUs(limits.NanoCPUs.Value()), r.NanoCPUs)
	r.Memory = cmp.Or(int64(limits.MemoryBytes), r.Memory)
	r.Pids = cmp.Or(limits.Pids, r.Pids)
	return r
}

// nanoCPUs rounds to a millionth of a CPU: the loader's float32 turns 0.1
// into 0.10000000149.
func nanoCPUs(cpus float32) int64 { return int64(math.Round(float64(cpus)*1e6)) * 1000 }

func ulimits(u map[string]*types.UlimitsConfig) []Ulimit {
	var out []Ulimit
	for name, v := range u {
		if v == nil {
			continue
		}
		lim := Ulimit{Name: name, Soft: int64(v.Soft), Hard: int64(v.Hard)}
		if v.Single != 0 {
			lim.Soft, lim.Hard = int64(v.Single), int64(v.Single)
		}
		out = append(out, lim)
	}
	slices.SortFunc(out, func(a, b Ulimit) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func devices(d []types.DeviceMapping) []Device {
	var out []Device
	for _, m := range d {
		if isCDI(m.Source) {
			continue
		}
		out = append(out, Device{
			Source: m.Source, Target: cmp.Or(m.Target, m.Source), Permissions: cmp.Or(m.Permissions, "rwm"),
		})
	}
	return out
}
