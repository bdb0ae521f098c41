#!/bin/sh
# Before k3s starts: puts the copy of its datastore back when the host has attached a disk of that name to ask for it.
# Once a boot; the damaged one is kept aside.
set -eu
lib=/usr/local/lib/k3s-vm
server=/var/lib/rancher/k3s/server
copy=$server/k3s-vm-datastore.tar
grep -qx restore-datastore /sys/block/vd*/serial || exit 0
[ ! -e /run/k3s-vm/restored ] || exit 0
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
"$lib/report" datastore-restored "$(date --utc --reference="$copy" '+%Y-%m-%d %H:%M UTC')"
