#!/bin/sh
# Offers the host the disk and the memory as they are now, as a template for other machines: nothing in them belongs to
# this machine yet. Then receives this machine's identity as a tar archive. The file system is frozen while the host
# captures it, so that it is whole. A host that captures nothing sends the identity all the same.
#
# Nothing to do where the identity is on the seed: that is how the host restarts the machine when this here fails.
set -eu
lib=/usr/local/lib/k3s-vm
received=/run/k3s-vm/identity
[ ! -e /etc/k3s-vm/machine ] && [ ! -e /run/k3s-vm/seed/machine ] || exit 0

umask 077
step="find the port for its identity"
frozen=
finish() {
    status=$?
    [ -z "$frozen" ] || fsfreeze --unfreeze /
    [ "$status" -eq 0 ] || { sync && "$lib/report" identity-failed "$step"; }
}
trap finish EXIT
port=
for candidate in /sys/class/virtio-ports/*; do
    name=
    [ ! -e "$candidate/name" ] || read -r name <"$candidate/name"
    [ "$name" != org.k3s-vm.identity ] || port=/dev/${candidate##*/}
done
[ -n "$port" ]

# Identities that systemd, cloud-init and sshd made up for this boot: each machine makes its own.
step="remove the image's identity"
systemctl start systemd-machine-id-commit.service || true
umount /etc/machine-id 2>/dev/null || true
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
: >/etc/machine-id
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/ssh/ssh_host_*

# Machines that begin from the same memory must not have their random numbers in common. Linux sees to that where it has a
# driver for vmgenid (5.18 and later); else by the ioctl RNDRESEEDCRNG (linux/random.h).
has_vmgenid() {
    for driver in /sys/bus/*/drivers/vmgenid; do
        [ ! -e "$driver" ] || return 0
    done
    return 1
}
reseed() {
    perl -e 'open my $f, ">", "/dev/urandom" or die; ioctl $f, 0x5207, 0 or die' 2>/dev/null ||
        python3 -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207)' 2>/dev/null ||
        has_vmgenid
}

seconds() {
    read -r now _ </proc/uptime
    echo "${now%%.*}"
}
# receive: takes all that the host sends, up to its end. Ends at once with nothing while the host is not connected. The port
# stays open in between: Linux discards what has come for a port when it is closed (drivers/char/virtio_console.c).
receive() {
    cat <&3 >"$received.tar"
    [ -s "$received.tar" ] || { sleep 0.1 && false; }
}

step="receive the identity"
mkdir -p "$received"
exec 3<"$port"
if [ ! -e /etc/k3s-vm/grown ] && reseed && fsfreeze --freeze / 2>/dev/null; then
    frozen=yes
    "$lib/report" prepared
    began=$(seconds)
    until receive; do
        # Reported before the thaw: what the host captured later would not be whole.
        [ $(($(seconds) - began)) -lt 10 ] || { "$lib/report" capture-skipped && break; }
    done
    fsfreeze --unfreeze /
    frozen=
else
    "$lib/report" capture-skipped
fi
until [ -s "$received.tar" ]; do
    receive || true
done

exec 3<&-
step="unpack the identity"
tar -C "$received" -xf "$received.tar"
rm "$received.tar"
# The archive's last file.
[ -e "$received/machine" ]

step="renew the time and random numbers"
# The memory may be older than this machine, and shared.
if read -r now 2>/dev/null </sys/class/rtc/rtc0/since_epoch; then
    # uutils 0.0.17 does not read that form.
    date -s "@$now" >/dev/null || true
fi
cat "$received/entropy" >/dev/urandom
rm "$received/entropy"
reseed

step="make a machine id"
# The journal looks for it when it starts.
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
systemctl restart --no-block systemd-journald.service
