#!/bin/sh
# After each end of k3s (ExecStopPost= of its unit): tells the host why, and keeps a copy of the datastore when k3s has
# closed it in good order, for `k3s-pre-start` to put back when the datastore is damaged.
lib=/usr/local/lib/k3s-vm
server=/var/lib/rancher/k3s/server
copy=$server/k3s-vm-datastore.tar
umask 077

journalctl --sync 2>/dev/null
said=$(journalctl --quiet --no-pager --output=cat --lines=100 "_SYSTEMD_INVOCATION_ID=$INVOCATION_ID")
damage=$(printf "%s\n" "$said" | "$lib/detect-datastore-corruption")

# last PATTERN: the last line of it that matches.
last() {
    printf "%s\n" "$said" | sed -En "/$1/p" | tail -n 1
}
# Prints the message of a line of logrus or klog, which is what k3s logs by: its first line, and not more of it than a
# report takes.
message() {
    sed -e 's/^time="[^"]*" level=[a-z]* msg=//' -e 's/^"\(.*\)"$/\1/' -e 's/\\n.*//' -e 's/\\"/"/g' \
        -e 's/^[EF][0-9]\{4\} [^]]*] //' -e 's/^Error: //' | cut -b -200
}
error=
if [ "$SERVICE_RESULT" != success ]; then
    error=$(last 'level=(fatal|panic) |^F[0-9]{4} |^panic: |^Error: ')
    [ -n "$error" ] || error=$(last 'level=error |^E[0-9]{4} ')
    # One that was killed has said nothing of it.
    [ -n "$error" ] || [ "$SERVICE_RESULT" != exit-code ] || error=$(last '[^[:space:]]')
    error=$(printf "%s\n" "$error" | message)
fi

if [ -n "$damage" ]; then
    kept="there is no copy of it"
    [ ! -e "$copy" ] || kept="a copy is of $(date -u -r "$copy" '+%Y-%m-%d %H:%M UTC')"
    "$lib/report" datastore-damaged "$damage; $kept"
elif [ "$SERVICE_RESULT" = success ]; then
    # One name, one file: after a crash it is the old copy or the new one. A full disk leaves the old one.
    if tar -C "$server" -cf "$copy.new" db token && sync "$copy.new"; then
        mv "$copy.new" "$copy"
    else
        rm -f "$copy.new"
    fi
elif [ "$(systemctl show --property=NRestarts --value k3s.service)" -lt 10 ]; then
    # The end of its journal, on the console that the host keeps. A crash loop says it often enough.
    printf "%s\n" "$said" | tail -n 10 | cut -c -300 | sed 's/^/k3s: /; s/$/\r/' >/dev/ttyS0
fi
"$lib/report" k3s-exited "$SERVICE_RESULT $EXIT_STATUS${error:+: $error}"
