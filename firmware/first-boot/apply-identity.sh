#!/bin/sh
# Makes the guest this machine: its name, its keys, its configuration and the size of its disk. They come from what
# `capture-point` has received, or from the seed. Does nothing when the firmware's UUID and serial number, which is a digest of
# the configuration, are those of the last time. Run early at each boot, and by `provision` ("now") in the first one.
set -eu
lib=/usr/local/lib/k3s-vm
seed=/run/k3s-vm/seed
told=/run/k3s-vm/identity
mark=/etc/k3s-vm/machine
[ "${1-}" = now ] || "$lib/report" booted
step="read which machine it is"
trap '[ $? -eq 0 ] || "$lib/report" failed "$step"' EXIT
own=
taken=none
serial=
[ ! -e /sys/class/dmi/id/product_uuid ] || read -r own </sys/class/dmi/id/product_uuid
[ ! -e /sys/class/dmi/id/product_serial ] || read -r serial </sys/class/dmi/id/product_serial
[ ! -s "$mark" ] || read -r taken <"$mark"
[ "$own $serial" != "$taken" ] || exit 0

grown=/run/k3s-vm/grow.log
mkdir -p "${grown%/*}"
"$lib/grow-root" >"$grown" 2>&1 &
growing=$!
step="mount the seed"
umask 077
mkdir -p "$seed"
mountpoint -q "$seed" || mount -t vfat -o ro,umask=077 "$("$lib/find-disk" seed)" "$seed"
[ -e "$told/machine" ] || told=$seed

step="set its name"
read -r name <"$told/hostname"
echo "$name" >/proc/sys/kernel/hostname
install -m 0644 "$told/hostname" /etc/hostname
{
    grep -v '^127\.0\.1\.1[[:space:]]' /etc/hosts || true
    echo "127.0.1.1 $name"
} >/etc/hosts.new
chmod 0644 /etc/hosts.new
mv /etc/hosts.new /etc/hosts

step="install its SSH keys"
install -D -m 0600 "$told/authorized_keys" /root/.ssh/authorized_keys
rm -f /etc/ssh/ssh_host_*
install -m 0600 "$told/host_key" /etc/ssh/ssh_host_ed25519_key
install -m 0644 "$told/host_key.pub" /etc/ssh/ssh_host_ed25519_key.pub

applied=/run/k3s-vm/config.log
step="apply its configuration"
"$lib/apply-config" "$told/config.tar" 2>"$applied" || {
    step="$step: $(tail -n 1 "$applied")"
    exit 1
}

step="record which machine it is"
grew=
wait "$growing" || grew=no
size=$(df -Pk / | { read -r _ && read -r _ size _ && echo $((size >> 10))M; })
if [ -z "$grew" ]; then
    "$lib/report" disk-grown "$size"
else
    # A node with less space than it should have is better than none.
    "$lib/report" disk-not-grown "it stays at $size: $(tail -n 1 "$grown")"
fi
# The mark comes last and whole, so that a boot that was cut begins again.
sync
install -D -m 0600 "$told/machine" "$mark.new"
sync "$mark.new"
mv "$mark.new" "$mark"
! command -v restorecon >/dev/null || restorecon -RF /root/.ssh /etc/ssh /etc/hostname /etc/hosts /etc/rancher 2>/dev/null || true
# Not at once where first-boot.sh, which is read from the seed, has not ended.
umount -l "$seed"
rm -rf /run/k3s-vm/identity
