# shellcheck shell=bash disable=SC2034,SC2154
# Older and minimal images: Debian 12 (systemd 252, cloud-init 22.4), whose network is ifupdown's, with a DHCP client.
release=bookworm
root_options+=,x-systemd.growfs
packages=(
  systemd-timesyncd libpam-systemd cloud-init cloud-guest-utils e2fsprogs dosfstools fdisk gdisk sudo
  ifupdown isc-dhcp-client iputils-ping curl less nano procps psmisc
)

configure() {
  # As Debian's own cloud images have it.
  cat >"$root/etc/network/interfaces" <<'INTERFACES'
source /etc/network/interfaces.d/*
auto lo
iface lo inet loopback
INTERFACES
}
