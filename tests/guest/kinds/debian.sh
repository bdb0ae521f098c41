# shellcheck shell=bash disable=SC2034
# Debian's generic cloud image. It is what all tests boot that are about something else than the guest.
name=debian-trixie-generic
root_options+=,x-systemd.growfs
packages=(
  systemd-timesyncd libpam-systemd
  # what makes it a cloud image
  cloud-init cloud-guest-utils e2fsprogs dosfstools fdisk gdisk sudo
  # network
  netplan.io systemd-resolved libnss-resolve iputils-ping curl
  # what people expect at a prompt
  bash-completion less nano procps psmisc
)
