#!/bin/sh
# At shutdown, after k3s: k3s.service leaves containers running (KillMode=process), and those that ignore SIGTERM would
# hold the power-off up for 90 seconds. They get 4 to 5 seconds to end by themselves.
pods=/sys/fs/cgroup/kubepods
[ -d "$pods" ] || pods=/sys/fs/cgroup/kubepods.slice
[ -d "$pods" ] || exit 0
all() { find "$pods" -name cgroup.procs -exec cat {} + 2>/dev/null; }
# over: whether no process is left, here and below.
over() {
    populated=0
    [ ! -e "$pods/cgroup.events" ] || read -r _ populated <"$pods/cgroup.events"
    [ "$populated" != 1 ]
}
# shellcheck disable=SC2046
kill -TERM $(all) 2>/dev/null || true
read -r began _ </proc/uptime
until over; do
    sleep 0.1
    read -r now _ </proc/uptime
    [ $((${now%.*} - ${began%.*})) -lt 5 ] || break
done
# shellcheck disable=SC2046
over || echo 1 >"$pods/cgroup.kill" 2>/dev/null || kill -KILL $(all) 2>/dev/null || true
