#!/bin/sh
# Installs the k3s release that the host has attached, once. Everything comes from read-only disks whose content the
# host has verified; nothing is downloaded.
set -eu
lib=/usr/local/lib/k3s-vm
step="reading the release's description"
failed() {
    [ "$(df --output=avail / | tail -n 1)" -gt 1024 ] || step="$step: the disk is full"
    "$lib/report" failed "$step"
}
trap '[ $? -eq 0 ] || failed' EXIT

. "$lib/release.env"
"$lib/report" disk-grown "$(df --output=size -BM / | tail -n 1 | tr -d ' ')"

# attach_copy DISK SIZE MODE TARGET: the first SIZE bytes of an attached disk become a file.
attach_copy() {
    device=/dev/disk/by-id/virtio-$1
    step="copying $4 from the attached disk $1"
    udevadm settle --exit-if-exists="$device" --timeout=10
    mkdir -p "$(dirname "$4")"
    head -c "$2" "$device" >"$4.part"
    [ "$(stat -c %s "$4.part")" = "$2" ]
    chmod "$3" "$4.part"
    mv "$4.part" "$4"
}

attach_copy k3s "$K3S_SIZE" 0755 /usr/local/bin/k3s
ln -sf k3s /usr/local/bin/kubectl
ln -sf k3s /usr/local/bin/crictl
if [ -n "$AIRGAP_SIZE" ]; then
    images=/var/lib/rancher/k3s/agent/images
    attach_copy airgap "$AIRGAP_SIZE" 0600 "$images/k3s-airgap-images-amd64.tar.zst"
    # Later starts skip what was imported (k3s 1.33.1, 1.32.5, 1.31.9 and later).
    touch "$images/.cache.json"
fi
step="flushing the disk"
sync
"$lib/report" k3s-installed "$K3S_VERSION"

step="starting k3s.service"
systemctl enable --quiet k3s.service k3s-vm-booted.service k3s-vm-clock.service k3s-vm-pods.service
systemctl start --no-block k3s-vm-clock.service k3s-vm-pods.service k3s.service
# Later boots have nothing left to do for cloud-init; the network configuration that it wrote stays.
touch /etc/cloud/cloud-init.disabled
