# shellcheck shell=bash disable=SC2034,SC2154
# AlmaLinux, Rocky and Fedora: NetworkManager and no networkd, xfs, a /boot of its own, dracut, SELinux, no growpart.
initrd=dracut
root_type=xfs
root_options=defaults
number=([bios]=1 [esp]=2 [boot]=3 [root]=4)
# Debian's policy does not hold a whole boot, and labels cannot be written without root: it only warns.
kernel_options='security=selinux selinux=1 enforcing=0'
packages=(
  libpam-systemd cloud-init xfsprogs e2fsprogs dosfstools sudo
  network-manager chrony iputils-ping curl selinux-policy-default policycoreutils
  bash-completion less procps psmisc
)

configure() {
  # There it is a package of its own, and not installed.
  rm "$root"/usr/lib/systemd/systemd-networkd*
  printf '%s\n' 'system_info: {network: {renderers: [network-manager]}}' >"$root/etc/cloud/cloud.cfg.d/90-network.cfg"
  printf '%s\n' SELINUX=permissive SELINUXTYPE=default >"$root/etc/selinux/config"
}
