package volume

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mounted is a call of mount(2).
type mounted struct {
	source, fstype string
	flags          uintptr
	data           string
}

func TestPrepare_GivesTheKernelWhatTheOptionsSay(t *testing.T) {
	for name, c := range map[string]struct {
		options map[string]string
		want    mounted
	}{
		"nfs": {
			map[string]string{"type": "nfs", "o": "addr=10.0.0.9,rw,nolock,soft,noatime", "device": ":/export/data"},
			mounted{":/export/data", "nfs", unix.MS_NOATIME, "addr=10.0.0.9,nolock,soft"},
		},
		"nfs4": {
			map[string]string{"type": "nfs4", "o": "addr=localhost,ro", "device": ":/"},
			mounted{":/", "nfs4", unix.MS_RDONLY, "addr=127.0.0.1"},
		},
		"cifs": {
			map[string]string{"type": "cifs", "o": "addr=10.0.0.9,username=u,password=p", "device": "//10.0.0.9/share"},
			mounted{"//10.0.0.9/share", "cifs", 0, "addr=10.0.0.9,username=u,password=p"},
		},
		"ext4": {
			map[string]string{"type": "ext4", "o": "nosuid,errors=remount-ro", "device": "/dev/vdz"},
			mounted{"/dev/vdz", "ext4", unix.MS_NOSUID, "errors=remount-ro"},
		},
		"tmpfs": {
			map[string]string{"type": "tmpfs", "o": "size=1m,uid=1000", "device": "tmpfs"},
			mounted{"tmpfs", "tmpfs", 0, "size=1m,uid=1000"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			var got mounted
			s.mount = func(source, _, fstype string, flags uintptr, data string) error {
				got = mounted{source, fstype, flags, data}
				return nil
			}
			if _, err := s.Create("v", nil, c.options); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Prepare(t.Context(), "v"); err != nil || got != c.want {
				t.Errorf("%v\ngot  %+v\nwant %+v", err, got, c.want)
			}
		})
	}
}

func TestPrepare_AFailure_IsOneLineWithoutThePassword(t *testing.T) {
	for errno, want := range map[error]string{
		unix.ENODEV: "no filesystem cifs", unix.EINVAL: "driver_opts.o", unix.ENOENT: "driver_opts.device",
		unix.EACCES: "refuses", unix.ETIMEDOUT: "does not answer",
	} {
		s, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s.mount = func(string, string, string, uintptr, string) error { return errno }
		options := map[string]string{"type": "cifs", "o": "addr=10.0.0.9,username=u,password=hunter2", "device": "//10.0.0.9/share"}
		if _, err := s.Create("v", nil, options); err != nil {
			t.Fatal(err)
		}
		_, err = s.Prepare(t.Context(), "v")
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

func TestRelease_LeavesWhatIsInUse(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release("none", func() bool { return false }); err != nil {
		t.Errorf("a volume that is gone: %v", err)
	}
	if _, err := s.Create("v", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Release("v", func() bool { t.Error("a plain volume is never mounted"); return false }); err != nil {
		t.Error(err)
	}
}
