# shellcheck shell=bash disable=SC2034,SC2154
# Ubuntu's server images from 25.10 on: a root that is not the last partition by number, a /boot of its own, dracut,
# AppArmor, and tools that are uutils' instead of GNU's.
initrd=dracut
number[boot]=16
packages=(
  systemd-timesyncd libpam-systemd cloud-init cloud-guest-utils e2fsprogs dosfstools fdisk gdisk sudo
  netplan.io systemd-resolved libnss-resolve iputils-ping curl
  apparmor rust-coreutils unattended-upgrades multipath-tools
  bash-completion less nano procps psmisc
)

configure() {
  # Debian has uutils beside GNU's tools. What it does not provide stays GNU's.
  local tool
  for tool in $(chroot "$root" coreutils --list); do
    ! grep -Fqx "/usr/bin/$tool" "$root/var/lib/dpkg/info/coreutils.list" || ln -sf coreutils "$root/usr/bin/$tool"
  done
}
