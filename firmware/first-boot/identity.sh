#!/bin/sh
# What makes the guest this machine and no other: its name, its keys, its settings and the size of its disk. `prepare` has
# been told, or the seed tells, and is asked when the guest is another machine, or none yet, or is set otherwise: the serial
# number says which settings it is to have. Run early at each boot, and by `provision` ("now") in the first.
set -eu
lib=/usr/local/lib/k3s-vm
seed=/run/k3s-vm/seed
told=/run/k3s-vm/identity
mark=/etc/k3s-vm/machine
[ "${1-}" = now ] || "$lib/report" booted
step="reading whose it is"
trap '[ $? -eq 0 ] || "$lib/report" failed "becoming this machine: $step"' EXIT
own=
taken=none
serial=
[ ! -e /sys/class/dmi/id/product_uuid ] || read -r own </sys/class/dmi/id/product_uuid
[ ! -e /sys/class/dmi/id/product_serial ] || read -r serial </sys/class/dmi/id/product_serial
[ ! -s "$mark" ] || read -r taken <"$mark"
[ "$own $serial" != "$taken" ] || exit 0

"$lib/grow" &
growing=$!
step="mounting the seed"
umask 077
mkdir -p "$seed"
mountpoint -q "$seed" || mount -t vfat -o ro,umask=077 "$("$lib/disk" seed)" "$seed"
[ -e "$told/machine" ] || told=$seed

step="taking its name"
read -r name <"$told/hostname"
echo "$name" >/proc/sys/kernel/hostname
install -m 0644 "$told/hostname" /etc/hostname
{
    grep -v '^127\.0\.1\.1[[:space:]]' /etc/hosts || true
    echo "127.0.1.1 $name"
} >/etc/hosts.new
chmod 0644 /etc/hosts.new
mv /etc/hosts.new /etc/hosts

step="taking its keys"
install -D -m 0600 "$told/authorized_keys" /root/.ssh/authorized_keys
rm -f /etc/ssh/ssh_host_*
install -m 0600 "$told/host_key" /etc/ssh/ssh_host_ed25519_key
install -m 0644 "$told/host_key.pub" /etc/ssh/ssh_host_ed25519_key.pub

step="taking its settings"
"$lib/settings" "$told/settings.tar"

step="growing the disk"
wait "$growing"
"$lib/report" disk-grown "$(df --output=size -BM / | tail -n 1 | tr -d ' ')"
step="leaving the seed"
# The mark comes last and whole, so that a boot that was cut begins again.
sync
install -D -m 0600 "$told/machine" "$mark.new"
sync "$mark.new"
mv "$mark.new" "$mark"
umount "$seed"
rm -rf /run/k3s-vm/identity
