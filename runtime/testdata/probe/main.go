// Probe is the program inside the containers of the tests. It is built
// static and is the whole of their image.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"sleep"}
	}
	if run, ok := verbs[args[0]]; ok {
		run(args[1:])
		return
	}
	fmt.Fprintln(os.Stderr, "unknown verb", args[0])
	os.Exit(99)
}

var verbs = map[string]func([]string){
	"exit":      func(a []string) { os.Exit(number(a[0])) },
	"sleep":     func([]string) { sleep() },
	"print":     func(a []string) { fmt.Println(strings.Join(a, " ")) },
	"eprint":    func(a []string) { fmt.Fprintln(os.Stderr, strings.Join(a, " ")) },
	"lines":     lines,
	"hold":      hold,
	"slowlines": slowlines,
	"ignore":    func([]string) { signal.Ignore(syscall.SIGTERM, syscall.SIGINT); fmt.Println("ignoring"); sleep() },
	"traps":     traps,
	"eat":       eat,
	"fork":      fork,
	"orphan":    orphan,
	"facts":     facts,
	"cat":       func([]string) { io.Copy(os.Stdout, os.Stdin) },
	"echo":      echo,
	"file":      file,
	"size":      size,
	"touch":     touch,
	"daemon":    daemon,
	"zombies":   zombies,
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		os.Exit(98)
	}
	return n
}

func sleep() {
	for {
		time.Sleep(time.Hour)
	}
}

// lines N: prints N numbered lines.
func lines(a []string) {
	w := bufio.NewWriter(os.Stdout)
	for i := range number(a[0]) {
		fmt.Fprintf(w, "line %d of many, long enough to fill a file soon\n", i)
	}
	w.Flush()
}

// slowlines N: prints N numbered lines, ten a millisecond at most.
func slowlines(a []string) {
	for i := range number(a[0]) {
		fmt.Printf("line %d of many, long enough to fill a file soon\n", i)
		if i%10 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// hold N: prints N lines, then stays.
func hold(a []string) {
	lines(a)
	sleep()
}

// traps SIGTERM and exits 7.
func traps([]string) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1)
	fmt.Println("ready")
	for s := range c {
		fmt.Println("got", s)
		if s == syscall.SIGTERM {
			os.Exit(7)
		}
	}
}

// eat N: uses N MiB.
func eat(a []string) {
	var keep [][]byte
	for range number(a[0]) {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		keep = append(keep, b)
	}
	fmt.Println("ate", len(keep))
}

// fork N: starts N children that stay, tells how many it got.
func fork(a []string) {
	got := 0
	for range number(a[0]) {
		cmd := exec.Command("/probe", "sleep")
		if cmd.Start() != nil {
			break
		}
		got++
	}
	fmt.Println("forked", got)
}

// orphan leaves a grandchild behind, which ends at once.
func orphan([]string) {
	for range 5 {
		cmd := exec.Command("/probe", "daemon", "0")
		cmd.Run()
	}
	time.Sleep(300 * time.Millisecond)
	zombies(nil)
	os.Exit(3)
}

// daemon SECONDS: starts a child in the background and ends.
func daemon(a []string) {
	verb := "sleep"
	if len(a) > 0 && a[0] == "0" {
		verb = "exit"
	}
	cmd := exec.Command("/probe", verb, "0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Start()
	fmt.Println("daemon", cmd.Process.Pid)
}

func zombies([]string) {
	n := 0
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err == nil && strings.Contains(string(b), ") Z ") {
			n++
		}
	}
	fmt.Println("zombies", n)
}

// facts prints what the process sees of itself, as JSON.
func facts([]string) {
	status := map[string]string{}
	b, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(b), "\n") {
		k, v, _ := strings.Cut(line, ":")
		switch k {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups":
			status[k] = strings.TrimSpace(v)
		}
	}
	var fds []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/proc/") &&
			!strings.HasPrefix(to, "/sys/fs/cgroup") { // what Go itself opens
			fds = append(fds, e.Name())
		}
	}
	var nofile syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &nofile)
	cwd, _ := os.Getwd()
	host, _ := os.Hostname()
	score, _ := os.ReadFile("/proc/self/oom_score_adj")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"status": status, "env": os.Environ(), "args": os.Args, "cwd": cwd, "pid": os.Getpid(), "hostname": host,
		"fds": fds, "nofile": nofile.Cur, "oom": strings.TrimSpace(string(score)), "mounts": string(mounts),
	})
}

// echo repeats lines of stdin until "bye".
func echo([]string) {
	s := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	for s.Scan() {
		fmt.Println("echo", s.Text())
		if s.Text() == "bye" {
			os.Exit(4)
		}
	}
}

// file PATH: prints owner, mode and content.
func file(a []string) {
	fi, err := os.Stat(a[0])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	st := fi.Sys().(*syscall.Stat_t)
	b, _ := os.ReadFile(a[0])
	fmt.Printf("%d:%d %o %s\n", st.Uid, st.Gid, fi.Mode().Perm(), b)
}

func touch(a []string) {
	if err := os.WriteFile(a[0], nil, 0o600); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// size prints the terminal's size, again at each change.
func size([]string) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGWINCH)
	for {
		var ws struct{ Row, Col, X, Y uint16 }
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&ws)))
		if e != 0 {
			fmt.Println("no terminal:", e)
			os.Exit(1)
		}
		fmt.Printf("size %dx%d\n", ws.Row, ws.Col)
		if ws.Row == 50 {
			os.Exit(5)
		}
		<-c
	}
}
