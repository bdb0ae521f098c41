#!/bin/sh
# Makes a node of the guest, once: what is the same for all machines with this image and k3s release, and then what is
# this machine's own. k3s comes from read-only disks whose content the host has verified; nothing is downloaded.
set -eu
lib=/usr/local/lib/k3s-vm
step="read the description of the k3s release"
trap '[ $? -eq 0 ] || "$lib/report" failed "$step"' EXIT

# shellcheck source=/dev/null
. "$lib/release.env"
# A device in the image's fstab(5) that does not exist ends the boot, after 90 seconds, at a shell on the console.
if ! systemctl is-active --quiet local-fs.target; then
    while read -r what where _ options _; do
        case $what$options in
            '#'* | *noauto* | *nofail* | *automount*) ;;
            *) [ -n "${where##/*}" ] || mountpoint -q "$where" || step="use this image: its /etc/fstab names $what for $where, which is not there" ;;
        esac
    done </etc/fstab
    exit 1
fi
step="find room for k3s"
images=/var/lib/rancher/k3s/agent/images
archive=$images/k3s-airgap-images-amd64.tar.zst
# What an earlier run has copied is copied again.
rm -f /usr/local/bin/k3s /usr/local/bin/k3s.part "$archive" "$archive.part"
needed=$((K3S_SIZE + ${AIRGAP_SIZE:-0}))
# room: prints how many bytes are free on the disk.
room() {
    df -Pk / | { read -r _ && read -r _ _ _ free _ && echo $((free << 10)); }
}
# Only where the image's own size is too small: a template keeps that size.
reason=
if [ "$(room)" -lt $((needed + (256 << 20))) ]; then
    reason=$("$lib/grow-root" 2>&1) && reason= || reason="; ${reason##*
}"
    mkdir -p /etc/k3s-vm
    touch /etc/k3s-vm/grown
fi
room=$(room)
step="copy k3s and its images: they take $((needed >> 20)) MiB, and $((room >> 20)) MiB are free (a larger --disk may help)$reason"
[ "$room" -ge "$needed" ]

# attach_copy DISK SIZE MODE TARGET: the first SIZE bytes of an attached disk become a file.
attach_copy() {
    step="copy $4 from the attached disk $1"
    device=$("$lib/find-disk" "$1")
    mkdir -p "${4%/*}"
    head -c "$2" "$device" >"$4.part"
    [ "$(stat -c %s "$4.part")" = "$2" ]
    chmod "$3" "$4.part"
    mv "$4.part" "$4"
}

attach_copy k3s "$K3S_SIZE" 0755 /usr/local/bin/k3s
ln -sf k3s /usr/local/bin/kubectl
ln -sf k3s /usr/local/bin/crictl
# k3s unpacks what it brings along at its first use, whatever that is; so it is done once per host.
/usr/local/bin/k3s ctr --version >/dev/null 2>&1 || true
if [ -n "$AIRGAP_SIZE" ]; then
    attach_copy airgap "$AIRGAP_SIZE" 0600 "$archive"
    # Later starts skip what was imported (k3s 1.33.1, 1.32.5, 1.31.9 and later).
    touch "$images/.cache.json"
fi
step="enable k3s.service"
systemctl enable --quiet --no-reload k3s.service
# Later boots have nothing left to do for cloud-init; the network configuration that it wrote stays.
mkdir -p /etc/cloud
touch /etc/cloud/cloud-init.disabled
# Programs of a folder that SELinux takes for data are not run.
! command -v restorecon >/dev/null || restorecon -RF "$lib" /usr/local/bin /etc/systemd/system /etc/k3s-vm 2>/dev/null || true
mkdir -p /etc/systemd/system-generators
ln -sfn /dev/null /etc/systemd/system-generators/cloud-init-generator
sync
"$lib/report" k3s-installed "$K3S_VERSION"

# What fails in these has been reported by them, and in the first the host restarts the guest.
trap - EXIT
"$lib/capture-point"
"$lib/apply-identity" now
trap '[ $? -eq 0 ] || "$lib/report" failed "$step"' EXIT
step="start k3s.service"
systemctl start --no-block k3s-vm-exec.service k3s-vm-pods.service k3s.service
