package spec

import (
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
)

// Hook is one command of post_start or pre_stop, run inside of a task's
// container.
type Hook struct {
	Command     []string          `json:"command"`
	User        string            `json:"user,omitempty"` // "": the container's
	Privileged  bool              `json:"privileged,omitempty"`
	WorkingDir  string            `json:"working_dir,omitempty"`
	Environment map[string]string `json:"environment,omitempty"` // beside the container's
}

// hooks converts the hooks of one event. A variable without a value is that of
// the user's environment.
func (l *loading) hooks(hooks []types.ServiceHook) []Hook {
	var out []Hook
	for _, h := range hooks {
		env := types.MappingWithEquals{}
		for k, v := range h.Environment {
			if value, ok := l.in.environ[k]; v == nil && ok {
				v = &value
			}
			env[k] = v
		}
		out = append(out, Hook{
			Command: list(h.Command), User: h.User, Privileged: h.Privileged, WorkingDir: h.WorkingDir,
			Environment: environment(env),
		})
	}
	return out
}

// hooks checks that each hook has a command.
func (c serviceCheck) hooks() {
	for attr, hooks := range map[string][]types.ServiceHook{"post_start": c.s.PostStart, "pre_stop": c.s.PreStop} {
		for i, h := range hooks {
			if len(h.Command) == 0 || h.Command[0] == "" {
				c.fail(fmt.Sprintf("%s.%s.%d", c.at, attr, i), fmt.Sprintf("hook %d of %s has no command", i+1, attr), "add command:")
			}
		}
	}
}
