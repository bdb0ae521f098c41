#!/usr/bin/env bash
# The guest's scripts (firmware/first-boot) under the tools of GNU, of uutils and of busybox, each in a root directory of
# its own: the host's /usr/bin and libraries, and an /etc, /sys, /proc and /dev that the test has made. What would change
# the machine is a stand-in that writes down its name and arguments.
#
#   tests/scripts.sh        checks all scripts with shellcheck, and tries them
set -euo pipefail
cd "$(dirname "$0")/.."
shellcheck firmware/first-boot/*.sh

# In a user namespace, root has no rights over this machine: the scripts set the clock and the host's name, and mount.
if [ "${1-}" != within ]; then
    exec unshare --user --map-root-user --mount --uts -- "$BASH" "$0" within
fi

work=$(mktemp -d)
trap 'umount --recursive --lazy "$work" && rm -rf "$work"' EXIT
mount -t tmpfs none "$work"
failed=0 count=0

# begin TOOLS: an empty root directory with these tools.
begin() {
    root=$work/root
    ! mountpoint -q "$root/usr/bin" || umount "$root"/usr/{bin,sbin,lib,lib64}
    rm -rf "$root"
    mkdir -p "$root"/{etc,dev,proc,run,sys/class/virtio-ports,tmp,tools,stubs,root,usr/{bin,sbin,lib,lib64,local/{bin,lib/k3s-vm}}}
    for each in bin sbin lib lib64; do
        [ ! -d "/usr/$each" ] || mount --bind "/usr/$each" "$root/usr/$each"
        ln -s "usr/$each" "$root/$each"
    done
    for each in firmware/first-boot/*.sh; do
        install -m 0755 "$each" "$root/usr/local/lib/k3s-vm/$(basename "$each" .sh)"
    done
    case $1 in
        uutils)
            # Debian 12 has a program for each of them, later ones have one program for all.
            if [ -d /usr/lib/cargo/bin/coreutils ]; then
                for each in /usr/lib/cargo/bin/coreutils/*; do ln -s "$each" "$root/tools/${each##*/}"; done
            else
                for each in $(coreutils --list); do ln -s /usr/bin/coreutils "$root/tools/$each"; done
            fi ;;
        busybox)
            # Its shell takes its own tools before those of the PATH, so the shell is the host's.
            for each in $(busybox --list); do
                case $each in
                    sh | ash | bash) ;;
                    *) ln -s /usr/bin/busybox "$root/tools/$each" ;;
                esac
            done ;;
    esac
    for each in systemctl fsfreeze nmcli mount umount udevadm sfdisk partx modprobe dmesg journalctl date resize2fs findmnt; do
        stub "$each" ''
    done
    stub mountpoint 'exit 0'
    # They would renew the kernel's random numbers.
    stub perl 'exit 1'
    stub python3 'exit 1'
    touch "$root/calls" "$root/dev/null" "$root/dev/kmsg" "$root/dev/urandom"
    mkdir -p "$root/proc/sys/kernel/random" "$root/proc/self" "$root/sys/class/dmi/id" "$root/sys/class/rtc/rtc0"
    mkdir -p "$root/sys/bus/acpi/drivers/vmgenid"
    echo "none / tmpfs rw 0 0" >"$root/proc/mounts"
    echo "100.5 90.1" >"$root/proc/uptime"
    echo 11111111-2222-4333-8444-555555555555 >"$root/proc/sys/kernel/random/uuid"
    echo 1800000000 >"$root/sys/class/rtc/rtc0/since_epoch"
}

# stub NAME LINES: a stand-in that writes down how it was called, and then does the lines.
stub() {
    printf '#!/bin/sh\n/usr/bin/echo "%s $*" >>/calls\n%s\n' "$1" "$2" >"$root/stubs/$1"
    chmod +x "$root/stubs/$1"
}

# run SCRIPT ARGUMENT...: its exit status is $status, and what it said is $said.
run() {
    status=0
    said=$(timeout 60 chroot "$root" /usr/bin/env -i PATH=/stubs:/tools:/usr/sbin:/usr/bin \
        sh "/usr/local/lib/k3s-vm/$1" "${@:2}" 2>&1) || status=$?
}

# port NUMBER NAME: a virtio-serial port, as a file.
port() {
    mkdir -p "$root/sys/class/virtio-ports/vport1p$1"
    echo "$2" >"$root/sys/class/virtio-ports/vport1p$1/name"
    : >"$root/dev/vport1p$1"
}

reports() { cut -d ' ' -f 2- "$root/dev/vport1p1"; }

# check WHAT COMMAND...: counts it.
check() {
    count=$((count + 1))
    "${@:2}" || {
        failed=$((failed + 1))
        printf 'FAILED with %s: %s\n  status %s, said: %s\n' "$tools" "$1" "$status" "$said"
    }
}
has() { grep -Fxq -- "$2" "$root/$1"; }
lacks() { ! grep -Fq -- "$2" "$root/$1"; }
is() { [ "$1" = "$2" ]; }

# identity FOLDER: the files of a machine's identity.
identity() {
    mkdir -p "$1" "$work/config/etc/rancher/k3s" "$work/config/etc/k3s-vm"
    echo "node-name: shop" >"$work/config/etc/rancher/k3s/config.yaml"
    echo "nameserver 192.0.2.53" >"$work/config/etc/k3s-vm/resolv.conf"
    tar -C "$work/config" -cf "$1/config.tar" etc
    echo shop >"$1/hostname"
    echo "ssh-ed25519 AAAA client" >"$1/authorized_keys"
    echo "private" >"$1/host_key"
    echo "ssh-ed25519 BBBB shop" >"$1/host_key.pub"
    echo "uuid serial" >"$1/machine"
}

try_prepare() {
    begin "$tools"
    port 1 org.k3s-vm.stages
    port 2 org.k3s-vm.identity
    identity "$work/identity"
    head -c 100000 /dev/urandom >"$work/identity/entropy"
    (cd "$work/identity" && tar -cf "$root/dev/vport1p2" hostname authorized_keys host_key host_key.pub config.tar entropy machine)
    echo old >"$root/etc/machine-id"
    run capture-point
    check "the identity arrives" is "$status" 0
    check "it arrives whole" cmp -s "$work/identity/config.tar" "$root/run/k3s-vm/identity/config.tar"
    check "the guest's random numbers change" cmp -s "$work/identity/entropy" "$root/dev/urandom"
    check "the disk is offered while it is frozen" is "$(reports)" prepared
    check "and thawed" is "$(grep -c ^fsfreeze "$root/calls")" 2
    check "the machine has a number of its own" has etc/machine-id 11111111222243338444555555555555

    truncate -s 20000 "$root/dev/vport1p2"
    : >"$root/dev/vport1p1"
    rm -rf "$root/run/k3s-vm"
    run capture-point
    check "half an identity is none" is "$(reports | tail -n 1)" "identity-failed unpack the identity"

    begin "$tools"
    port 1 org.k3s-vm.stages
    run capture-point
    check "without a port" is "$status $(reports)" "1 identity-failed find the port for its identity"

    mkdir -p "$root/run/k3s-vm/seed"
    touch "$root/run/k3s-vm/seed/machine"
    run capture-point
    check "with the identity on the seed" is "$status" 0
}

try_identity() {
    begin "$tools"
    port 1 org.k3s-vm.stages
    identity "$root/run/k3s-vm/identity"
    echo uuid >"$root/sys/class/dmi/id/product_uuid"
    echo serial >"$root/sys/class/dmi/id/product_serial"
    printf '127.0.0.1 localhost\n127.0.1.1 image\n' >"$root/etc/hosts"
    mkdir -p "$root/etc/ssh" "$root/etc/k3s-vm"
    touch "$root/etc/ssh/ssh_host_rsa_key"
    echo etc/gone >"$root/etc/k3s-vm/config-files"
    touch "$root/etc/gone"
    echo "1 0 8:1 / / rw - ext4 /dev/mapper/vg-root rw" >"$root/proc/self/mountinfo"
    stub umount '[ "$1" = -l ] || { echo "umount: target is busy" >&2; exit 32; }'
    run apply-identity now
    check "becomes the machine, while first-boot.sh still runs from the seed" is "$status" 0
    check "its name" has etc/hosts "127.0.1.1 shop"
    check "not the image's" lacks etc/hosts "127.0.1.1 image"
    check "its key" has root/.ssh/authorized_keys "ssh-ed25519 AAAA client"
    check "no other host key" is "$(cd "$root/etc/ssh" && echo ssh_host_*)" "ssh_host_ed25519_key ssh_host_ed25519_key.pub"
    check "its configuration" has etc/rancher/k3s/config.yaml "node-name: shop"
    check "nothing of another" [ ! -e "$root/etc/gone" ]
    check "its DNS server" has etc/resolv.conf "nameserver 192.0.2.53"
    check "a disk that does not grow is reported" grep -q "^disk-not-grown it stays at .*/dev/mapper/vg-root" <(reports)
    check "it is recorded" has etc/k3s-vm/machine "uuid serial"
    : >"$root/dev/vport1p1"
    run apply-identity now
    check "nothing is done twice" is "$status $(reports)" "0 "
}

try_network() {
    begin "$tools"
    mkdir -p "$root"/etc/{NetworkManager,dhcp,k3s-vm}
    printf 'nameserver 192.0.2.53\nnameserver 2001:db8::53\n' >"$root/etc/k3s-vm/resolv.conf"
    echo old >"$root/etc/resolv.conf"
    run network configure
    check "configures" is "$status" 0
    check "networkd" has etc/systemd/network/10-k3s-vm.network DNS=2001:db8::53
    check "NetworkManager" has etc/NetworkManager/system-connections/k3s-vm.nmconnection "dns=192.0.2.53;"
    check "dhclient" grep -q resolv.conf "$root/etc/dhcp/dhclient-enter-hooks.d/k3s-vm"
    check "resolv.conf is NetworkManager's" has etc/resolv.conf old
    calls=$(grep -c restart "$root/calls")
    run network configure
    check "nothing is restarted twice" is "$(grep -c restart "$root/calls")" "$calls"
    rm -r "$root/etc/NetworkManager"
    ln -sf nowhere "$root/etc/resolv.conf"
    mkdir -p "$root/sys/class/net/e0"
    echo 52:54:00:12:34:56 >"$root/sys/class/net/e0/address"
    stub ip ''
    stub resolvectl ''
    run network up
    check "a card is brought up" has calls "ip -4 route replace default via 10.0.2.2 dev e0"
    check "a link to nothing becomes resolv.conf" has etc/resolv.conf "nameserver 192.0.2.53"
}

# disk ROOM: a root partition of 100000 sectors from 2048 on, with so many free ones behind it.
disk() {
    mkdir -p "$root/sys/devices/vda/vda1" "$root/sys/dev/block"
    ln -sf ../../devices/vda/vda1 "$root/sys/dev/block/254:1"
    echo $((102048 + $1)) >"$root/sys/devices/vda/size"
    echo 1 >"$root/sys/devices/vda/vda1/partition"
    echo 2048 >"$root/sys/devices/vda/vda1/start"
    echo 100000 >"$root/sys/devices/vda/vda1/size"
    echo "1 0 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw" >"$root/proc/self/mountinfo"
}

try_grow() {
    begin "$tools"
    disk 100000
    run grow-root
    check "a partition grows" has calls "sfdisk --quiet --no-reread --no-tell-kernel --force -N 1 /dev/vda"
    check "the kernel is told" has calls "partx --update --nr 1 /dev/vda"
    : >"$root/calls"
    disk 100
    run grow-root
    check "one that has it all does not" lacks calls sfdisk
}

try_provision() {
    begin "$tools"
    port 1 org.k3s-vm.stages
    port 2 org.k3s-vm.identity
    mkdir -p "$root/run/k3s-vm/seed" "$root/etc/systemd/system-generators"
    touch "$root/run/k3s-vm/seed/machine"
    printf 'K3S_VERSION=v1\nK3S_SIZE=%s\nAIRGAP_SIZE=\n' 200001 >"$root/usr/local/lib/k3s-vm/release.env"
    head -c 300000 /dev/urandom >"$root/dev/k3s"
    printf '#!/bin/sh\necho "/dev/$1"\n' >"$root/usr/local/lib/k3s-vm/find-disk"
    printf '#!/bin/sh\nexit 0\n' >"$root/usr/local/lib/k3s-vm/apply-identity"
    echo "1 0 0:1 / / rw - tmpfs none rw" >"$root/proc/self/mountinfo"
    run provision
    check "provisions" is "$status" 0
    check "copies just so much" cmp -s <(head -c 200001 "$root/dev/k3s") "$root/usr/local/bin/k3s"
    check "says so" is "$(reports)" "k3s-installed v1"
    check "and starts it" has calls "systemctl start --no-block k3s-vm-exec.service k3s-vm-pods.service k3s.service"
    printf 'K3S_VERSION=v1\nK3S_SIZE=%s\nAIRGAP_SIZE=\n' $((1 << 50)) >"$root/usr/local/lib/k3s-vm/release.env"
    : >"$root/dev/vport1p1"
    run provision
    check "too little space is named" grep -q "^failed copy k3s and its images: they take" <(reports)
}

try_first_boot() {
    begin "$tools"
    port 1 org.k3s-vm.stages
    mkdir -p "$root/seed" "$root/sys/fs/cgroup" "$root/etc/systemd/system"
    cp firmware/first-boot/* "$root/seed/"
    touch "$root/seed/release.env"
    printf 'UUID=1 / ext4 rw 0 1\nUUID=2 /boot/efi vfat umask=0077 0 1\n' >"$root/etc/fstab"
    refused "it has no systemd (Alpine?)"
    mkdir -p "$root/run/systemd/system"
    refused "it boots with cgroup v1, and Kubernetes needs v2 (kernel option systemd.unified_cgroup_hierarchy=1)"
    touch "$root/sys/fs/cgroup/cgroup.controllers"
    stub modprobe '[ "$1" != overlay ]'
    refused "its kernel has no overlay file system"
    stub modprobe '[ "$1" != br_netfilter ]'
    refused "its kernel has no br_netfilter (Enterprise Linux 10 has it in the package kernel-modules-extra)"
    stub modprobe ''
    echo "[Service]" >"$root/etc/systemd/system/k3s.service"
    refused "it brings a Kubernetes of its own (k3s.service)"
    rm "$root/etc/systemd/system/k3s.service"
    run first-boot /seed alone
    check "lays down what a node needs" is "$status $(reports | tail -n 1)" "0 booted"
    check "units" [ -e "$root/etc/systemd/system/k3s.service" ]
    check "the boot waits for no /boot" grep -q "^UUID=2 /boot/efi vfat umask=0077,noauto,x-systemd.automount " "$root/etc/fstab"
    check "a slow one not now either" has calls "systemctl daemon-reload"
    check "and starts it" has calls "systemctl start --no-block k3s-vm-provision.service"
    for each in firewalld nftables iptables nm-cloud-setup; do
        check "without the image's $each" grep -q "^systemctl mask .* $each\.service" "$root/calls"
    done
}

# refused REASON: the first boot ends with it.
refused() {
    run first-boot /seed alone
    check "$1" is "$(reports | tail -n 1)" "failed use this image: $1"
}

for tools in gnu uutils busybox; do
    for each in first_boot prepare identity network grow provision; do
        "try_$each"
    done
done
echo "the guest's scripts: $((count - failed)) of $count checks hold, with the tools of GNU, uutils and busybox"
[ "$failed" = 0 ]
