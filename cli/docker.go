package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Docker is as much of a Docker engine's API as taking a stack over needs.
type Docker struct{ http *http.Client }

// defaultDocker is where a Docker engine listens unless DOCKER_HOST says
// otherwise.
const defaultDocker = "unix:///var/run/docker.sock"

// NewDocker is a client for the engine at host (DOCKER_HOST; "" is the
// default). Volumes are taken over where they lie, so it must be this
// machine's.
func NewDocker(host string) (*Docker, error) {
	if host == "" {
		host = defaultDocker
	}
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("DOCKER_HOST %s: want unix://PATH: the engine must be on this machine", host)
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &Docker{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}, nil
}

// DockerContainer is a container as the engine lists it.
type DockerContainer struct {
	ID     string `json:"Id"`
	Names  []string
	Image  string
	State  string
	Labels map[string]string
	Mounts []DockerMount
}

// DockerMount is a mount of a container.
type DockerMount struct{ Type, Name, Source, Destination string }

// DockerVolume is a volume of the engine.
type DockerVolume struct {
	Name, Driver, Mountpoint string
	Options                  map[string]string
}

func (d *Docker) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("ask Docker: %w", err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, payload)
	if err != nil {
		return nil, fmt.Errorf("ask Docker: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("ask Docker: %w", err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		var told struct{ Message string }
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // what came of it is the message
		if json.Unmarshal(text, &told) != nil || told.Message == "" {
			told.Message = resp.Status
		}
		return nil, fmt.Errorf("Docker: %s", told.Message)
	}
	return resp, nil
}

func (d *Docker) get(ctx context.Context, path string, answer any) error {
	resp, err := d.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(answer); err != nil {
		return fmt.Errorf("read Docker's answer: %w", err)
	}
	return nil
}

func (d *Docker) post(ctx context.Context, path string, body any) error {
	resp, err := d.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Containers are those of a Compose project, stopped ones included.
func (d *Docker) Containers(ctx context.Context, project string) ([]DockerContainer, error) {
	filters, err := json.Marshal(map[string][]string{"label": {labelProject + "=" + project}})
	if err != nil {
		return nil, fmt.Errorf("ask Docker: %w", err)
	}
	var list []DockerContainer
	err = d.get(ctx, "/containers/json?"+url.Values{"all": {"1"}, "filters": {string(filters)}}.Encode(), &list)
	return list, err
}

// Volumes are all volumes of the engine.
func (d *Docker) Volumes(ctx context.Context) ([]DockerVolume, error) {
	var answer struct{ Volumes []DockerVolume }
	err := d.get(ctx, "/volumes", &answer)
	return answer.Volumes, err
}

// Stop stops a container as its own stop signal and timeout say.
func (d *Docker) Stop(ctx context.Context, id string) error {
	return d.post(ctx, "/containers/"+url.PathEscape(id)+"/stop", nil)
}

// Start starts a container that was stopped.
func (d *Docker) Start(ctx context.Context, id string) error {
	return d.post(ctx, "/containers/"+url.PathEscape(id)+"/start", nil)
}

// Rest sets the restart policy of a container to no: the engine would start it
// again at its own next start.
func (d *Docker) Rest(ctx context.Context, id string) error {
	return d.post(ctx, "/containers/"+url.PathEscape(id)+"/update", map[string]any{"RestartPolicy": map[string]string{"Name": "no"}})
}

// Save is an image as an archive; the caller closes it.
func (d *Docker) Save(ctx context.Context, image string) (io.ReadCloser, error) {
	resp, err := d.do(ctx, http.MethodGet, "/images/"+url.PathEscape(image)+"/get", nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
