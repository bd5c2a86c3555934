package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/api"
	"berth/dataplane"
	"berth/spec"
)

// nameText is what the dataplane answers, one line a name.
func nameText(s dataplane.Snapshot) string {
	var out strings.Builder
	for _, n := range s.Networks {
		fmt.Fprintf(&out, "dns at %v internal=%t\n", n.Gateways, n.Internal)
		for _, name := range sortedKeys(n.Names) {
			if len(name) == 12 && strings.Trim(name, "0123456789abcdef") == "" {
				continue // ids differ from run to run
			}
			fmt.Fprintf(&out, "  %s %v ttl %d\n", name, n.Names[name].Addrs, n.Names[name].TTL)
		}
		addrs := map[string]string{}
		for a, name := range n.PTR {
			addrs[a.StringExpanded()] = name
		}
		for _, a := range sortedKeys(addrs) {
			fmt.Fprintf(&out, "  %s is %s\n", a, addrs[a])
		}
	}
	for _, l := range s.Loopback {
		fmt.Fprintf(&out, "[::1]:%d to %v\n", l.Port, l.Backends)
	}
	return out.String()
}

func TestTraffic_RulesAndNamesOfAStack(t *testing.T) {
	simulate(t, func(b *bench) {
		b.host.taken[9000] = "somebody"
		st := stackOf("shop",
			service("web", "web:1", replicas(2), func(s *spec.Service) {
				s.Networks = []spec.Attachment{{Network: "back", Aliases: []string{"API.example"}}, {Network: "default", Aliases: []string{"www"}}}
				s.Ports = []spec.Port{
					tcp(8080, 80),
					{Published: 9000, PublishedEnd: 9005, Target: 81, Protocol: "tcp"},
					{HostIP: "127.0.0.1", Published: 8443, Target: 443, Protocol: "tcp"},
					{HostIP: "::1", Published: 8444, Target: 444, Protocol: "tcp"},
					{Published: 53, Target: 5353, Protocol: "udp"},
				}
			}),
			service("db", "db:1", func(s *spec.Service) {
				s.Networks = []spec.Attachment{{Network: "back", IPv4: "10.9.0.9"}}
				s.ContainerName = "the-db"
			}),
			service("cache", "db:1", replicas(2), func(s *spec.Service) {
				s.Networks = []spec.Attachment{{Network: "back", Aliases: []string{"kv"}}}
				s.EndpointMode = "dnsrr"
			}),
			service("side", "job:1", dependsOn("web", spec.DependsStarted), func(s *spec.Service) {
				s.NetworkMode, s.Networks = "service:web", nil
				s.Ports = []spec.Port{tcp(7070, 70)}
			}),
			service("off", "job:1", replicas(0), published(tcp(6060, 60))),
		)
		st.Networks["back"] = spec.Network{
			Key: "back", Name: "shop_back", Internal: true, EnableIPv6: true,
			IPAM: []spec.IPAMPool{{Subnet: "10.9.0.0/24", IPRange: "10.9.0.128/25"}, {Subnet: "fd09::/64"}},
		}
		b.up(st)
		b.pass(time.Second)
		golden(t, "traffic", ruleText(b, b.networks.current())+"\n"+nameText(b.traffic.snapshot))
		if got := b.traffic.snapshot.Upstreams; len(got) != 1 || got[0] != netip.MustParseAddrPort("192.0.2.53:53") {
			t.Errorf("upstreams %v", got)
		}
		onDisk, err := dataplane.Read(dataplane.SnapshotPath(b.cfg.Run))
		if err != nil || nameText(onDisk) != nameText(b.traffic.snapshot) {
			t.Errorf("the file of names: %v\n%s", err, nameText(onDisk))
		}
	})
}

func TestTraffic_ManyChangesAtOnce_ShareAFewApplies(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		b.pass(time.Second)
		before := b.networks.syncs
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := b.traffic.sync(b.t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := b.networks.syncs - before; n > 2 {
			t.Errorf("%d applies for 100 requests", n)
		}
	})
}

func TestTraffic_FiftyTasks_CostAFewApplies(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1", replicas(50))))
		if n := b.networks.syncs; n > 12 {
			t.Errorf("%d applies for 50 tasks", n)
		}
	})
}

func TestPublish_IsDone_OnlyWhenTheRulesAreInForce(t *testing.T) {
	simulate(t, func(b *bench) {
		release := b.calls.hold("sync web=web/1.1")
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:1")), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(5 * time.Second)
		b.expectTasks("web/1.1 running")
		release()
		b.pass(time.Second)
		b.expectTasks("web/1.1 running published")
	})
}

func TestWithdraw_TheOldTaskIsStopped_OnlyWhenTheRulesAreInForce(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		release := b.calls.hold("sync web=web/1.2")
		b.calls.reset()
		_, _, err := b.tryUp(stackOf("shop", service("web", "web:2")), func(r *api.ApplyRequest) { r.Wait = false })
		if err != nil {
			t.Fatal(err)
		}
		b.pass(10 * time.Second)
		b.expectCalls("signal")
		release()
		b.pass(time.Second)
		b.expectCalls("signal", "signal web/1.1 SIGTERM")
	})
}

func TestPublish_ThatFails_IsTriedAgain_AndSaysWhy(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("one", service("db", "db:1")))
		b.calls.fail("sync", errors.New("nft: out of memory"))
		_, done, err := b.tryUp(stackOf("two", service("web", "web:1")))
		if err != nil || done.Outcome != api.OutcomeNotReady || !strings.Contains(done.Detail, "nft: out of memory") {
			t.Errorf("%+v, %v", done, err)
		}
		b.calls.heal("sync")
		b.pass(time.Minute)
		b.expectTasks("db/1.1 running published", "web/1.1 running published")
	})
}

func TestChanged_ByOthers_IsRepaired(t *testing.T) {
	simulate(t, func(b *bench) {
		b.up(stackOf("shop", service("web", "web:1")))
		want := ruleText(b, b.networks.current())
		if err := b.networks.Teardown(context.Background()); err != nil {
			t.Fatal(err)
		}
		clear(b.networks.bridges)
		b.networks.changed <- struct{}{}
		b.pass(time.Second)
		if got := ruleText(b, b.networks.current()); got != want {
			t.Errorf("rules:\n%s\nwant:\n%s", got, want)
		}
		if len(b.networks.bridges) != 1 {
			t.Error("the bridge was not made again")
		}
	})
}
