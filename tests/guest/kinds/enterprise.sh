# shellcheck shell=bash disable=SC2034,SC2154
# AlmaLinux and Rocky Linux: NetworkManager and no networkd, xfs, a /boot of its own, dracut, no growpart. Their SELinux is
# left out: a file system that is filled without root has no labels.
initrd=dracut
root_type=xfs
root_options=defaults
number=([bios]=1 [esp]=2 [boot]=3 [root]=4)
packages=(
  libpam-systemd cloud-init xfsprogs e2fsprogs dosfstools sudo
  network-manager chrony iputils-ping curl
  bash-completion less procps psmisc
)

configure() {
  # There it is a package of its own, and not installed.
  rm "$root"/usr/lib/systemd/systemd-networkd*
  printf '%s\n' 'system_info: {network: {renderers: [network-manager]}}' >"$root/etc/cloud/cloud.cfg.d/90-network.cfg"
}
