// Command standin takes the place of any image's program: it takes whatever
// arguments follow "--", and does nothing with them.
//
//	standin serve PORT/PROTO… -- …   idle; say the host's name on these ports
//	standin once -- …                end at once, as a job that is done
//	standin healthy                  answer a health test
//	standin facts NAME…              print what can be seen from inside, as JSON
//
// It is static and alone in its image, so it needs no shell and no users.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "standin: say serve, once, healthy or facts")
		os.Exit(64)
	}
	rest := args[1:]
	if i := slices.Index(rest, "--"); i >= 0 {
		rest = rest[:i]
	}
	switch args[0] {
	case "serve":
		serve(rest)
	case "facts":
		if err := json.NewEncoder(os.Stdout).Encode(look(rest)); err != nil {
			fmt.Fprintln(os.Stderr, "standin:", err)
			os.Exit(1)
		}
	}
}

// serve ends on any signal that asks for it: stop_signal may be each of them.
// A port that is taken is another container's in the same network namespace.
func serve(ports []string) {
	host, _ := os.Hostname()
	for _, p := range ports {
		number, proto, _ := strings.Cut(p, "/")
		if proto == "udp" {
			if c, err := net.ListenPacket("udp", ":"+number); err == nil {
				go echo(c, host)
			}
		} else if l, err := net.Listen("tcp", ":"+number); err == nil {
			go greet(l, host)
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	<-stop
}

func greet(l net.Listener, host string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(c, host)
		c.Close()
	}
}

func echo(c net.PacketConn, host string) {
	b := make([]byte, 1)
	for {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(host+"\n"), from) // the sender asks again
	}
}

// facts are what look finds.
type facts struct {
	Hostname  string
	Addresses []string            // without loopback's
	Names     map[string][]string // addresses of each name that was asked for
	Sysctls   map[string]string   // value of each asked for as sysctl:KEY
}

func look(args []string) facts {
	f := facts{Names: map[string][]string{}, Sysctls: map[string]string{}}
	f.Hostname, _ = os.Hostname()
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() {
			f.Addresses = append(f.Addresses, ip.IP.String())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, a := range args {
		if key, ok := strings.CutPrefix(a, "sysctl:"); ok {
			value, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
			f.Sysctls[key] = strings.Join(strings.Fields(string(value)), " ")
			continue
		}
		f.Names[a], _ = net.DefaultResolver.LookupHost(ctx, a)
	}
	return f
}
