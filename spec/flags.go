package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/mattn/go-shellwords"
)

// ParseMount reads a mount in the short form of `volumes`, as `run -v` has it.
// A relative or ~ path starts in dir or in the user's home. The source of a
// volume is its name as written.
func ParseMount(text, dir string) (Mount, error) {
	v, err := format.ParseVolume(text)
	if err != nil {
		return Mount{}, fmt.Errorf("volume %q: %w", text, err)
	}
	if v.Target == "" {
		return Mount{}, fmt.Errorf("volume %q has no target; write it as SOURCE:TARGET", text)
	}
	if !strings.HasPrefix(v.Target, "/") {
		return Mount{}, fmt.Errorf("volume %q: target %s is not absolute", text, v.Target)
	}
	if v.Type == types.VolumeTypeBind {
		if rest, ok := strings.CutPrefix(v.Source, "~"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return Mount{}, fmt.Errorf("volume %q: %w", text, err)
			}
			v.Source = home + rest
		}
		if !filepath.IsAbs(v.Source) {
			v.Source = filepath.Join(dir, v.Source)
		}
		v.Source = filepath.Clean(v.Source)
	}
	m := mount(v)
	m.CreateHostPath = m.Type == MountBind
	return m, nil
}

// ParsePorts reads published ports in the short form of `ports`, as `run -p`
// has it.
func ParsePorts(text string) ([]Port, error) {
	list, err := types.ParsePortConfig(text)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", text, err)
	}
	out := make([]Port, len(list))
	for i, p := range list {
		if out[i], err = port(p); err != nil {
			return nil, fmt.Errorf("port %q: %w", text, err)
		}
	}
	return out, nil
}

// ReadEnvFile reads a file of KEY=VALUE lines, as `env_file` does. A KEY without
// a value, and ${KEY}, is what lookup says.
func ReadEnvFile(path string, lookup func(string) (string, bool)) (map[string]string, error) {
	env, err := dotenv.ReadWithLookup(lookup, path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return env, nil
}

// SplitCommand splits a command line as a shell would.
func SplitCommand(text string) ([]string, error) {
	args, err := shellwords.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("command %q: %w", text, err)
	}
	return args, nil
}
