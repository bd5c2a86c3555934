package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"berth/api"
	"berth/spec"
	"berth/store"
)

func (a *Agent) resourceRoutes(h huma.API) {
	type byStack struct {
		Stack string `query:"stack"`
	}
	huma.Register(h, op(http.MethodGet, "/v1/volumes", "List volumes"),
		func(_ context.Context, in *byStack) (*reply[[]api.Volume], error) {
			list, err := a.listVolumes(in.Stack)
			return &reply[[]api.Volume]{list}, fail(err)
		})
	huma.Register(h, op(http.MethodPost, "/v1/volumes", "Make a volume"),
		func(_ context.Context, in *struct{ Body api.VolumeCreate }) (*reply[api.Volume], error) {
			v, err := a.createVolume(&in.Body)
			return &reply[api.Volume]{v}, fail(err)
		})
	huma.Register(h, op(http.MethodDelete, "/v1/volumes/{name}", "Remove a volume"),
		func(_ context.Context, in *struct {
			Name  string `path:"name"`
			Force bool   `query:"force"`
		},
		) (*struct{}, error) {
			if in.Force && !a.volumeExists(in.Name) {
				return nil, nil
			}
			return nil, fail(a.removeVolume(in.Name))
		})
	huma.Register(h, op(http.MethodPost, "/v1/volumes/prune", "Remove unused volumes"),
		func(_ context.Context, in *struct {
			All bool `query:"all"`
		},
		) (*reply[api.Removed], error) {
			r, err := a.pruneVolumes(in.All)
			return &reply[api.Removed]{r}, fail(err)
		})
	huma.Register(h, op(http.MethodGet, "/v1/networks", "List networks"),
		func(_ context.Context, in *byStack) (*reply[[]api.Network], error) {
			return &reply[[]api.Network]{a.listNetworks(in.Stack)}, nil
		})
	huma.Register(h, op(http.MethodPost, "/v1/networks", "Make a network"),
		func(ctx context.Context, in *struct{ Body api.NetworkCreate }) (*reply[api.Network], error) {
			n, err := a.createNetwork(ctx, &in.Body)
			return &reply[api.Network]{n}, fail(err)
		})
	huma.Register(h, op(http.MethodDelete, "/v1/networks/{name}", "Remove a network"),
		func(ctx context.Context, in *struct {
			Name string `path:"name"`
		},
		) (*struct{}, error) {
			return nil, fail(a.deleteNetwork(ctx, in.Name))
		})
	huma.Register(h, op(http.MethodPost, "/v1/networks/prune", "Remove unused networks"),
		func(ctx context.Context, _ *struct{}) (*reply[api.Removed], error) {
			out := api.Removed{Names: []string{}}
			v := a.w.view()
			for _, name := range sortedKeys(v.networks) {
				if v.networks[name].Stack != "" || len(networkUsers(v, name)) > 0 {
					continue
				}
				if err := a.removeNetwork(ctx, name); err != nil {
					return nil, fail(err)
				}
				out.Names = append(out.Names, name)
			}
			return &reply[api.Removed]{out}, nil
		})
}

// networkUsers names what uses a network: tasks, and stacks that declare it.
func networkUsers(v view, network string) []string {
	var out []string
	for _, t := range v.tasks {
		if slices.ContainsFunc(t.Endpoints, func(e store.Endpoint) bool { return e.Network == network }) {
			out = append(out, t.Name())
		}
	}
	for _, name := range sortedKeys(v.revisions) {
		if wants(v.revisions[name], network) {
			out = append(out, "stack "+name)
		}
	}
	return out
}

func (a *Agent) listNetworks(stack string) []api.Network {
	v := a.w.view()
	out := []api.Network{}
	for _, name := range sortedKeys(v.networks) {
		if n := v.networks[name]; stack == "" || n.Stack == stack {
			out = append(out, a.apiNetwork(v, n))
		}
	}
	return out
}

func (a *Agent) apiNetwork(v view, n *store.Network) api.Network {
	out := api.Network{
		Name: n.Name, ID: n.ID, Driver: "bridge", Stack: n.Stack, Key: n.Key, Internal: n.Internal, Labels: n.Labels,
		Bridge: a.networks.Bridge(n.ID), CreatedAt: n.Created, Endpoints: map[string][]string{}, VIPs: map[string][]string{},
	}
	for _, p := range []netip.Prefix{n.Subnet4, n.Subnet6} {
		if p.IsValid() {
			out.Subnets = append(out.Subnets, p.String())
		}
	}
	for _, g := range []netip.Addr{n.Gateway4, n.Gateway6} {
		if g.IsValid() {
			out.Gateways = append(out.Gateways, g.String())
		}
	}
	addrs := func(list ...netip.Addr) (s []string) {
		for _, x := range list {
			if x.IsValid() {
				s = append(s, x.String())
			}
		}
		return s
	}
	for _, t := range v.tasks {
		for _, e := range t.Endpoints {
			if e.Network == n.Name {
				out.Endpoints[t.Name()] = append(out.Endpoints[t.Name()], addrs(e.IPv4, e.IPv6)...)
			}
		}
	}
	for _, vip := range v.vips {
		if vip.Network == n.Name {
			out.VIPs[vip.Stack+"/"+vip.Service] = addrs(vip.IPv4, vip.IPv6)
		}
	}
	return out
}

// createNetwork makes a network that belongs to no stack.
func (a *Agent) createNetwork(ctx context.Context, req *api.NetworkCreate) (api.Network, error) {
	if req.Name == "" {
		return api.Network{}, invalid("a network needs a name")
	}
	if req.Driver != "" && req.Driver != "bridge" {
		return api.Network{}, invalid("network driver %q is not supported; use bridge", req.Driver)
	}
	n := spec.Network{
		Name: req.Name, Driver: req.Driver, Internal: req.Internal, EnableIPv6: req.EnableIPv6,
		DriverOpts: req.Options, Labels: req.Labels,
	}
	for i, s := range req.Subnets {
		pool := spec.IPAMPool{Subnet: s}
		if i == 0 {
			pool.Gateway = req.Gateway
		}
		n.IPAM = append(n.IPAM, pool)
	}
	err := a.w.commit(func(c *change) error {
		if c.network(req.Name) != nil {
			return &api.Error{Status: http.StatusConflict, Code: api.CodeConflict, Detail: fmt.Sprintf("network %s exists already", req.Name)}
		}
		return a.recordNetwork(c, "", n)
	})
	if err != nil {
		return api.Network{}, err
	}
	if err := a.ensureNetwork(ctx, req.Name); err != nil {
		return api.Network{}, err
	}
	a.loop.wake()
	v := a.w.view()
	return a.apiNetwork(v, v.networks[req.Name]), nil
}

func (a *Agent) deleteNetwork(ctx context.Context, name string) error {
	v := a.w.view()
	n := v.networks[name]
	if n == nil {
		return notFound("no network %s", name)
	}
	if users := networkUsers(v, name); len(users) > 0 {
		return &api.Error{
			Status: http.StatusConflict, Code: api.CodeInUse,
			Detail: fmt.Sprintf("network %s is in use by %s", name, users[0]), Hint: "`berth down` what uses it first",
		}
	}
	return a.removeNetwork(ctx, name)
}
