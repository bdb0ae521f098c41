#!/bin/bash
# Lets the host keep the disk as it is now, for other machines: nothing on it is this machine's own yet. The file system is
# frozen for that moment, so that it is whole; without a host that listens the guest soon goes on.
set -eu
lib=/usr/local/lib/k3s-vm
words=
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name" || continue
    [ "$name" != org.k3s-vm.words ] || words=/dev/${port##*/}
done
[ -n "$words" ] && [ ! -e /etc/k3s-vm/machine ] && [ ! -e /etc/k3s-vm/grown ] || exit 0

# What systemd has made up for this boot is nobody's: each machine makes up its own.
systemctl start systemd-machine-id-commit.service || true
umount /etc/machine-id 2>/dev/null || true
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
: >/etc/machine-id
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/ssh/ssh_host_*

exec 3<"$words"
if fsfreeze --freeze /; then
    trap 'fsfreeze --unfreeze /' EXIT
    "$lib/report" prepared
    SECONDS=0
    # It ends at once while nobody is there at the other end.
    until read -r -t 10 <&3; do
        if ((SECONDS >= 10)); then
            # Said before the thaw: what the host keeps after that is worth nothing.
            "$lib/report" went-on
            break
        fi
        sleep 0.1
    done
    fsfreeze --unfreeze /
    trap - EXIT
fi

# The journal is looked for under the new number.
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
systemctl restart --no-block systemd-journald.service
