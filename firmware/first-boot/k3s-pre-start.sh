#!/bin/sh
# All that k3s needs before it starts (ExecStartPre= of its unit): modules, the time, a default route and DNS servers, and
# the copy of its datastore when the host has attached a disk of that name (once a boot; the damaged one is kept aside).
set -eu
lib=/usr/local/lib/k3s-vm
server=/var/lib/rancher/k3s/server
copy=$server/k3s-vm-datastore.tar

modprobe -a br_netfilter overlay || true
# systemd may have set it by the age of a file in the image; k3s signs certificates by it. One second of difference is
# none, for both count whole seconds.
if read -r host 2>/dev/null </sys/class/rtc/rtc0/since_epoch; then
    ahead=$(($(date +%s) - host))
    if [ "$ahead" -lt -1 ] || [ "$ahead" -gt 1 ]; then
        date -s "@$host" >/dev/null || echo "cannot set the clock" >&2
    fi
fi

# k3s takes its address from the default route, and the pods' name servers from what is there when it starts.
routed() {
    while read -r _ destination _; do
        [ "$destination" != 00000000 ] || return 0
    done </proc/net/route
    return 1
}
named() {
    for file in /run/systemd/resolve/resolv.conf /etc/resolv.conf; do
        [ -e "$file" ] || continue
        while read -r word address _; do
            case $word$address in nameserver127.* | nameserver::1) ;; nameserver*) return 0 ;; esac
        done <"$file"
    done
    return 1
}
tries=0
until { routed && named; } || [ $((tries += 1)) -gt 300 ]; do
    sleep 0.1
    # After a second without a renderer that has done it, and again after ten.
    case $tries in
        10 | 100) "$lib/network" up || true ;;
    esac
done

restore() {
    trap '[ $? -eq 0 ] || "$lib/report" failed "restoring the datastore: $step"' EXIT
    step="there is no copy from an orderly stop"
    [ -e "$copy" ]
    step="unpacking $copy"
    rm -rf "$server/restored"
    mkdir -m 0700 "$server/restored"
    tar -C "$server/restored" -xpf "$copy"
    step="putting the copy in place"
    rm -rf "$server/db.damaged"
    [ ! -e "$server/db" ] || mv "$server/db" "$server/db.damaged"
    mv "$server/restored/db" "$server/db"
    mv "$server/restored/token" "$server/token"
    rmdir "$server/restored"
    mkdir -p /run/k3s-vm
    touch /run/k3s-vm/restored
    "$lib/report" datastore-restored "$(date -u -r "$copy" '+%Y-%m-%d %H:%M UTC')"
}
for serial in /sys/block/vd*/serial; do
    name=
    read -r name <"$serial" || true
    [ "$name" != restore-datastore ] || [ -e /run/k3s-vm/restored ] || restore
done
"$lib/report" k3s-starting
