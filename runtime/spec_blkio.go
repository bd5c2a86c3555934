package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// blkio: weights and rates for block devices. What the kernel can't do is left
// out with a warning; a device that is not there is an error.
func (m *specMaker) blkio(s *specs.Spec, c Container) error {
	b := c.Blkio
	if b == nil {
		return nil
	}
	var out specs.LinuxBlockIO
	weights, err := blockDevices(b.WeightDevice)
	if err != nil {
		return err
	}
	switch {
	case b.Weight == 0 && len(weights) == 0:
	case m.cg.bfqOnly(m.parent):
		// The runtimes know blkio.weight only: see weighBFQ.
	case !m.cg.weighsBlockIO(m.parent):
		m.warn(c.ID, "blkio_config.weight has no effect: no I/O scheduler of this kernel weighs cgroups")
	default:
		if b.Weight > 0 {
			out.Weight = &b.Weight
		}
		for _, w := range weights {
			v := specs.LinuxWeightDevice{Weight: new(uint16)}
			v.Major, v.Minor, *v.Weight = w.major, w.minor, uint16(w.rate)
			out.WeightDevice = append(out.WeightDevice, v)
		}
	}
	for _, l := range []struct {
		asked []DeviceRate
		to    *[]specs.LinuxThrottleDevice
	}{
		{b.ReadBps, &out.ThrottleReadBpsDevice},
		{b.WriteBps, &out.ThrottleWriteBpsDevice},
		{b.ReadIOps, &out.ThrottleReadIOPSDevice},
		{b.WriteIOps, &out.ThrottleWriteIOPSDevice},
	} {
		rates, err := blockDevices(l.asked)
		if err != nil {
			return err
		}
		if len(rates) > 0 && !m.cg.throttlesBlockIO() {
			m.warn(c.ID, "blkio_config has no effect: this kernel has no cgroup controller for block devices")
			return nil
		}
		for _, r := range rates {
			v := specs.LinuxThrottleDevice{Rate: uint64(r.rate)}
			v.Major, v.Minor = r.major, r.minor
			*l.to = append(*l.to, v)
		}
	}
	s.Linux.Resources.BlockIO = &out
	return nil
}

// blockDevice is a DeviceRate whose device was found.
type blockDevice struct{ major, minor, rate int64 }

func blockDevices(asked []DeviceRate) ([]blockDevice, error) {
	out := make([]blockDevice, 0, len(asked))
	for _, d := range asked {
		var st unix.Stat_t
		if err := unix.Stat(d.Path, &st); err != nil {
			return nil, invalid("blkio_config: device %s: %v", clip(d.Path), err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil, invalid("blkio_config: %s is not a block device", clip(d.Path))
		}
		out = append(out, blockDevice{int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), d.Rate})
	}
	return out, nil
}

// CheckBlkio says whether the devices of b are there.
func CheckBlkio(b *Blkio) error {
	for _, list := range [][]DeviceRate{b.WeightDevice, b.ReadBps, b.ReadIOps, b.WriteBps, b.WriteIOps} {
		if _, err := blockDevices(list); err != nil {
			return err
		}
	}
	return nil
}

func (c cgroupFS) throttlesBlockIO() bool {
	if !c.v2 {
		return c.mounts["blkio"] != ""
	}
	b, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil && strings.Contains(" "+strings.TrimSpace(string(b))+" ", " io ")
}

// weighsBlockIO looks for the file that the runtimes write a weight to; only
// cgroups below the root have it.
func (c cgroupFS) weighsBlockIO(parent string) bool {
	if c.v2 {
		for _, name := range []string{"io.weight", "io.bfq.weight"} {
			if found, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", name)); len(found) > 0 {
				return true
			}
		}
		return false
	}
	dir := c.dir("blkio", parent)
	return dir != "" && os.MkdirAll(dir, 0o755) == nil && pathExists(filepath.Join(dir, "blkio.weight"))
}

// bfqOnly says that weights are BFQ's, on cgroup v1.
func (c cgroupFS) bfqOnly(parent string) bool {
	dir := c.dir("blkio", parent)
	return !c.v2 && dir != "" && !c.weighsBlockIO(parent) && pathExists(filepath.Join(dir, "blkio.bfq.weight"))
}

// weighBFQ writes the weights that the OCI runtime was not told of, before the
// command starts: crun 1.8 has no word for BFQ's on cgroup v1.
func (m *specMaker) weighBFQ(cgroup string, b *Blkio) error {
	if b == nil || b.Weight == 0 && len(b.WeightDevice) == 0 || !m.cg.bfqOnly(m.parent) {
		return nil
	}
	dir := m.cg.dir("blkio", cgroup)
	if b.Weight > 0 {
		if err := os.WriteFile(filepath.Join(dir, "blkio.bfq.weight"), []byte(strconv.Itoa(int(b.Weight))), 0); err != nil {
			return fmt.Errorf("set blkio_config.weight: %w", err)
		}
	}
	weights, err := blockDevices(b.WeightDevice)
	if err != nil {
		return err
	}
	for _, w := range weights {
		line := fmt.Sprintf("%d:%d %d", w.major, w.minor, w.rate)
		err := os.WriteFile(filepath.Join(dir, "blkio.bfq.weight_device"), []byte(line), 0)
		if err != nil {
			m.warn(filepath.Base(cgroup), fmt.Sprintf("blkio_config.weight_device %d:%d has no effect: its I/O scheduler weighs nothing", w.major, w.minor))
		}
	}
	return nil
}
