#!/usr/bin/env bash
# Runs inside a fresh Debian 12 with systemd and cgroup v2: installs the agent
# as a service, brings examples/hello up, and shows that memory limits are
# enforced and that everything outlives restarts of the agent's unit.
# hack/vm-test lays out the folder this is run in.
set -euo pipefail
cd "$(dirname "$0")"
export HOME=/root
exec > >(cat) 2>&1 # no terminal: plain lines
say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; journalctl -u berthd --no-pager | tail -30; exit 1; }
try() { # try SECONDS COMMAND...: until it succeeds
	local end=$((SECONDS + $1)); shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.5
	done
}

say "$(uname -sr), $(stat -fc %T /sys/fs/cgroup), $(crun --version | head -1), $(conmon --version | head -1)"
say "berth install --now"
bin/berth install --now
systemctl is-active berthd
berth version
berth doctor || fail "doctor finds something broken"

say "berth image load, berth up"
for archive in images/*.tar; do berth image load -i "$archive"; done
cd hello
berth up -d
berth ps
curl -fsS --max-time 10 http://127.0.0.1:8080/ || fail "the published port does not answer"

say "a memory limit is enforced"
cd ../limit
berth up -d || true # the hog may be killed before up has seen it run
try 60 sh -c 'berth events --since 10m --until 0s 2>/dev/null | grep -q " oom "' || fail "no OOM kill"
grep -H . /sys/fs/cgroup/berth/*/memory.max | grep -q ':33554432$' || fail "memory.max is not 32 MiB"
berth ps -a
berth down --timeout 1

say "restarting the unit touches no container"
cd ../hello
pids() { pgrep -f '^/app$|redis-server' | sort | tr '\n' ' '; }
before=$(pids)
[ -n "$before" ] || fail "no container processes found"
systemctl restart berthd
try 30 curl -fsS --max-time 5 http://127.0.0.1:8080/ || fail "no answer after the restart"
[ "$(pids)" = "$before" ] || fail "processes changed: $before-> $(pids)"
berth ps

say "kill -9 of the agent: systemd brings it back, containers go on"
kill -9 "$(systemctl show -p MainPID --value berthd)"
try 30 systemctl is-active berthd || fail "the unit did not come back"
try 30 curl -fsS --max-time 5 http://127.0.0.1:8080/ || fail "no answer after the kill"
[ "$(pids)" = "$before" ] || fail "processes changed: $before-> $(pids)"

say "stop and start of the unit with nothing left, as after a boot"
systemctl stop berthd
for c in /sys/fs/cgroup/berth/*/cgroup.kill; do echo 1 >"$c"; done
kill $(pgrep -x conmon) $(pgrep -f 'berthd dataplane') 2>/dev/null || true
awk '$2 ~ "^/run/berth/" {print $2}' /proc/self/mounts | sort -r | xargs -r umount -l
rm -rf /run/berth
systemctl start berthd
try 60 curl -fsS --max-time 5 http://127.0.0.1:8080/ || fail "hello is not back"
berth ps

say "down"
berth down --volumes
[ -z "$(nft list tables | grep bt || true)" ] || fail "an nft table is left: $(nft list tables)"
say "all of it works"
