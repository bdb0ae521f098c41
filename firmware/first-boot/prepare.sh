#!/bin/bash
# Lets the host keep the disk and the memory as they are now, for other machines: nothing in them is this machine's own
# yet. Then asks the host who this machine is. The file system is frozen for that moment, so that it is whole; without a
# host that listens it soon is so no more, and the question stays.
set -eu
lib=/usr/local/lib/k3s-vm
words=
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name" || continue
    [ "$name" != org.k3s-vm.words ] || words=/dev/${port##*/}
done
[ -n "$words" ] && [ ! -e /etc/k3s-vm/machine ] || exit 0

# What systemd has made up for this boot is nobody's: each machine makes up its own.
systemctl start systemd-machine-id-commit.service || true
umount /etc/machine-id 2>/dev/null || true
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
: >/etc/machine-id
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/ssh/ssh_host_*

exec 3<"$words"
first=
# hears: takes the first line of what the host says. It ends at once while nobody is there at the other end.
hears() {
    read -r -t 10 first <&3 || { sleep 0.1 && false; }
}
if [ ! -e /etc/k3s-vm/grown ] && fsfreeze --freeze /; then
    trap 'fsfreeze --unfreeze /' EXIT
    "$lib/report" prepared
    SECONDS=0
    # Said before the thaw: what the host keeps after that is worth nothing.
    until hears; do
        ((SECONDS < 10)) || { "$lib/report" went-on && break; }
    done
    fsfreeze --unfreeze /
    trap - EXIT
else
    "$lib/report" went-on
fi
until [ -n "$first" ]; do
    hears || true
done

# For each file a line with its name and size, and then the file.
umask 077
mkdir -p /run/k3s-vm/identity
cd /run/k3s-vm/identity
read -r name size <<<"$first"
while [ "$name" != end ]; do
    head -c "$size" <&3 >"$name"
    read -r name size <&3
done
exec 3<&-

# The memory may have been kept long ago, and by many machines: they have neither the time nor random numbers in common.
read -r now </sys/class/rtc/rtc0/since_epoch && date --set="@$now" >/dev/null
cat entropy >/dev/urandom
# RNDRESEEDCRNG, in linux/random.h: at once, and not within a minute.
python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207)'
rm entropy

# The journal is looked for under the new number.
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
systemctl restart --no-block systemd-journald.service
