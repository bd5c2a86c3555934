package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"berth/spec"
)

// grpc.health.v1.Health/Check is one unary call with two messages of one field
// each, so it is spoken here over net/http's HTTP/2: the gRPC library would
// make berthd 7 MB larger (16.3 to 23.9).

// Serving states of grpc.health.v1.HealthCheckResponse.
var grpcStates = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

const grpcServing = 1

// Status codes of gRPC that a health service answers with.
var grpcCodes = map[string]string{
	"5": "does not know the service", "12": "has no health service", "14": "is unavailable", "16": "wants a login",
}

func askGRPC(ctx context.Context, addr netip.Addr, p *spec.Probe) answer {
	target := url.URL{Scheme: "http", Host: netip.AddrPortFrom(addr, p.Port).String(), Path: "/grpc.health.v1.Health/Check"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(grpcRequest(p.GRPCService)))
	if err != nil {
		return failed(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", "berth")
	tr := probeTransport()
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, probeOutput))
	if err != nil {
		return failed(err)
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return refused(fmt.Sprintf("answers %d, and not as a gRPC service", resp.StatusCode))
	}
	if len(body) == probeOutput {
		return refused("answers what is no health status") // and its trailer was not read
	}
	code := resp.Trailer.Get("Grpc-Status")
	if code == "" {
		code = resp.Header.Get("Grpc-Status") // an answer without a message
	}
	if code != "0" {
		text, ok := grpcCodes[code]
		if !ok {
			text = "answers with gRPC status " + strconv.Quote(oneLine(code))
		}
		return refused(text)
	}
	state, ok := grpcResponse(body)
	if !ok {
		return refused("answers what is no health status")
	}
	name := strconv.FormatUint(state, 10)
	if state < uint64(len(grpcStates)) {
		name = grpcStates[state]
	}
	if state != grpcServing {
		return refused("answers " + name)
	}
	return answer{output: name}
}

func refused(text string) answer { return answer{" " + text, text} }

// grpcRequest is a HealthCheckRequest in its frame: a byte for "not
// compressed", the length in four, the message with field 1, a text.
func grpcRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		message = append(message, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// grpcResponse reads a HealthCheckResponse in its frame: field 1, a number,
// which is left out when it is 0.
func grpcResponse(frame []byte) (state uint64, ok bool) {
	if len(frame) < 5 || frame[0] != 0 || binary.BigEndian.Uint32(frame[1:]) != uint32(len(frame)-5) {
		return 0, false
	}
	message := frame[5:]
	if len(message) == 0 {
		return 0, true
	}
	state, n := binary.Uvarint(message[1:])
	return state, message[0] == 1<<3 && n > 0 && n+1 == len(message)
}
