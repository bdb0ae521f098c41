#!/bin/sh
# k3s asks a datastore that it cannot read again and again, and hears no SIGTERM meanwhile (seen with 1.36). It is ended, and
# `k3s-ended` says why.
lib=/usr/local/lib/k3s-vm
property() {
    systemctl show --property="$1" --value k3s.service
}
while sleep 20 && [ "$(systemctl is-active k3s.service)" = activating ]; do
    said=$(journalctl --quiet --no-pager --output=cat --lines=20 "_SYSTEMD_INVOCATION_ID=$(property InvocationID)")
    [ -n "$(printf "%s\n" "$said" | "$lib/detect-datastore-corruption")" ] || continue
    pid=$(property MainPID)
    [ "$pid" -le 1 ] || kill -KILL "$pid"
done
