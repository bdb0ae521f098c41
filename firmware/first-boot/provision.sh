#!/bin/sh
# Makes a node of the guest, once: what is the same for all machines with this image and k3s release, and then what is
# this machine's own. k3s comes from read-only disks whose content the host has verified; nothing is downloaded.
set -eu
lib=/usr/local/lib/k3s-vm
step="reading the release's description"
trap '[ $? -eq 0 ] || "$lib/report" failed "$step"' EXIT

. "$lib/release.env"
step="growing the disk"
images=/var/lib/rancher/k3s/agent/images
archive=$images/k3s-airgap-images-amd64.tar.zst
# What a run before this one has copied is copied again, and takes no room beside itself.
rm -f /usr/local/bin/k3s /usr/local/bin/k3s.part "$archive" "$archive.part"
needed=$((K3S_SIZE + ${AIRGAP_SIZE:-0}))
room() {
    df --output=avail -B1 / | tail -n 1
}
# Only where the image's own size does not do: a disk that others are to stand on has it still.
if [ "$(room)" -lt $((needed + (256 << 20))) ]; then
    "$lib/grow"
    mkdir -p /etc/k3s-vm
    touch /etc/k3s-vm/grown
fi
room=$(room)
step="copying k3s and its images: of $((needed >> 20)) MiB $((room >> 20)) MiB fit on the disk, which is to be larger (--disk)"
[ "$room" -ge "$needed" ]

# attach_copy DISK SIZE MODE TARGET: the first SIZE bytes of an attached disk become a file.
attach_copy() {
    step="copying $4 from the attached disk $1"
    device=$("$lib/disk" "$1")
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
step="enabling k3s.service"
systemctl enable --quiet --no-reload k3s.service
# Later boots have nothing left to do for cloud-init; the network configuration that it wrote stays.
touch /etc/cloud/cloud-init.disabled
mkdir -p /etc/systemd/system-generators
ln -sfn /dev/null /etc/systemd/system-generators/cloud-init-generator
sync
"$lib/report" k3s-installed "$K3S_VERSION"

step="letting the host keep the disk"
"$lib/prepare"
step="becoming this machine"
"$lib/identity" now
step="starting k3s.service"
systemctl start --no-block k3s-vm-listener.service k3s-vm-pods.service k3s.service
