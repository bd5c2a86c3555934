package initproc_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"berth/runtime/initproc"
)

// wrap runs the test's own program as berth-env.
func wrap(t *testing.T, values string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, file := filepath.Join(dir, initproc.EnvName), filepath.Join(dir, "values")
	if err := errors.Join(os.Symlink(self, program), os.WriteFile(file, []byte(values), 0o400)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if args[0] == "PATH" {
		args[0] = file
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "A=old", "B=kept"}
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestEnv_FromFileOrDescriptor_CommandHasVariables(t *testing.T) {
	values := "A=new\x00B=other\x00C=two\nlines = $x\x00D=\x00"
	for _, source := range []string{"PATH", "3"} {
		out, errs, code := wrap(t, values, source, "B", "sh", "-c", `echo "$A|$B|$C|$D"; ls -l /proc/self/fd | grep -c values`)
		want := "new|kept|two\nlines = $x|\n0\n"
		if source == "PATH" { // descriptor 3 is then not berth-env's business
			want = "new|kept|two\nlines = $x|\n1\n"
		}
		if out != want || errs != "" || code != 1 && code != 0 {
			t.Errorf("%s: %q, %q, exit %d", source, out, errs, code)
		}
	}
}

func TestEnv_CommandsThatCannotRun_ExitAsInAShell(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"PATH", "", "no-such-program"}, 127},
		{[]string{"PATH", "", "/etc/passwd"}, 126},
		{[]string{"/no/such/file", "", "true"}, 126},
		{[]string{"9", "", "true"}, 126},
		{[]string{"PATH", ""}, 126},
	} {
		out, errs, code := wrap(t, "A=secret-value\x00", c.args...)
		if code != c.code || out != "" || errs == "" || bytes.Contains([]byte(errs), []byte("secret-value")) {
			t.Errorf("%v: %q, %q, exit %d; want %d", c.args, out, errs, code, c.code)
		}
	}
}
