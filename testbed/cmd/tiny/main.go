// Command tiny is the smallest service that can be measured: it answers every
// HTTP request with one line and ends on SIGTERM. It does without net/http,
// which would treble its size.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	listen := flag.String("listen", ":8080", "address to listen on")
	text := flag.String("text", "", "answer; the host's name by default")
	flag.Parse()
	if *text == "" {
		*text, _ = os.Hostname()
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tiny:", err)
		os.Exit(1)
	}
	go serve(l, *text+"\n")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}

func serve(l net.Listener, body string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go answer(c, body)
	}
}

// answer reads one request's head and answers it.
func answer(c net.Conn, body string) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}
