#!/bin/sh
# Run by cloud-init's bootcmd, or "alone" before it (see k3s-vm-first-boot.service), with the seed's mount point as its
# argument: refuses an image that cannot become a node, installs what all machines have in common, and starts the
# provisioning in the background. Runs again, with the same result, until a setup has completed.
set -eu
seed=$1
lib=/usr/local/lib/k3s-vm
scripts="report find-disk network provision capture-point apply-identity apply-config grow-root stop-pods k3s-pre-start k3s-post-stop detect-datastore-corruption watch-datastore exec-agent"
units="k3s-vm-exec k3s-vm-identity k3s-vm-pods"
step="install the first boot's files"
trap '[ $? -eq 0 ] || sh "$seed/report.sh" failed "$step"' EXIT

refuse() {
    step="use this image: $*"
    exit 1
}
[ -d /run/systemd/system ] || refuse "it has no systemd (Alpine?)"
[ -e /sys/fs/cgroup/cgroup.controllers ] || refuse "it boots with cgroup v1, and Kubernetes needs v2 (kernel option systemd.unified_cgroup_hierarchy=1)"
missing=
for tool in bash cat chmod cp cut date df find grep head install ln mount mv rm sed sort stat sync tail tar touch tr umount; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || refuse "it lacks$missing"
# Nothing in a boot needs /boot and /boot/efi: they are mounted when a program opens them. In a slow guest, udev may take
# longer than the 90 seconds that systemd waits for their devices, so this comes first and systemd reads fstab again at once.
[ ! -w /etc/fstab ] || sed -Ei '/noauto/!s,^([^[:space:]#]+[[:space:]]+/boot(/efi)?[[:space:]]+[^[:space:]]+[[:space:]]+)([^[:space:]]+),\1\3\,noauto\,x-systemd.automount,' /etc/fstab
read -r uptime _ </proc/uptime
[ "${uptime%%.*}" -lt 20 ] || systemctl daemon-reload
# has_module NAME FILE: built in, or one that can be loaded.
has_module() {
    [ -e "$2" ] || modprobe "$1" 2>/dev/null
}
has_module overlay /sys/module/overlay || grep -qw overlay /proc/filesystems || refuse "its kernel has no overlay file system"
# Cloud images of Enterprise Linux 10 leave that package out (https://github.com/kubernetes/kops/pull/18724).
has_module br_netfilter /proc/sys/net/bridge || refuse "its kernel has no br_netfilter (Enterprise Linux 10 has it in the package kernel-modules-extra)"
for unit in k3s k3s-agent rke2-server rke2-agent kubelet; do
    file=/etc/systemd/system/$unit.service
    if [ -e "$file" ] && ! grep -q k3s-vm "$file"; then
        refuse "it brings a Kubernetes of its own ($unit.service)"
    fi
done
[ -w /usr/local ] || refuse "its root file system is read-only"

for script in $scripts; do
    install -D -m 0755 "$seed/$script.sh" "$lib/$script"
done
"$lib/report" booted
enabled() {
    systemctl is-enabled --quiet "$1" 2>/dev/null
}
if [ "${2-}" = alone ]; then
    # What waits for others goes before them, or it would begin.
    systemctl stop --no-block cloud-init-network.service cloud-init-local.service cloud-init-main.service 2>/dev/null || true
    # Without cloud-init to configure it, an image may have no service for the network that is enabled.
    if [ -e /usr/lib/systemd/systemd-networkd ] && ! enabled NetworkManager.service && ! enabled networking.service; then
        enabled systemd-networkd.service || systemctl enable --quiet --no-reload systemd-networkd.service
        systemctl start --no-block systemd-networkd.service
    fi
fi
"$lib/network" configure

install -D -m 0600 "$seed/release.env" "$lib/release.env"
install -D -m 0644 "$seed/sshd.conf" /etc/ssh/sshd_config.d/00-k3s-vm.conf
for unit in $units k3s k3s-vm-datastore k3s-vm-provision; do
    install -D -m 0644 "$seed/$unit.service" "/etc/systemd/system/$unit.service"
done

install -D -m 0644 "$seed/coldplug.conf" /etc/systemd/system/systemd-udev-trigger.service.d/k3s-vm.conf

# The rest of the boot waits for neither: systemd finds new units without being told to look, and takes a second to look.
systemctl start --no-block k3s-vm-provision.service
# shellcheck disable=SC2086
systemctl enable --quiet --no-reload $units

# What a node does not use, what would change it or its clock (see exec-agent.sh) behind the developer's back, firewalls,
# which do not know of pods (the host forwards to loopback only), what adds routes for a cloud's network cards (k3s's
# k3s.service does not start beside it), and root's own systemd, which every first login would wait for.
unused="apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service motd-news.timer man-db.timer
    e2scrub_all.timer fwupd-refresh.timer
    snapd.service snapd.socket snapd.seeded.service multipathd.service multipathd.socket
    ua-timer.timer update-notifier-download.timer update-notifier-motd.timer
    systemd-timesyncd.service chrony.service chronyd.service dpkg-db-backup.timer dnf-makecache.timer
    ufw.service firewalld.service nftables.service netfilter-persistent.service iptables.service ip6tables.service
    nm-cloud-setup.service nm-cloud-setup.timer
    sshd-keygen.service getty@tty1.service serial-getty@ttyS0.service user@0.service"
# What an early boot spends time on, and waiting for more than k3s needs (see k3s-pre-start.sh): from the next boot on. The
# nodes of /dev are made by systemd-tmpfiles-setup-dev alone, and random numbers are QEMU's. What runs once a boot is not
# stopped on its way, for it would have failed.
slow="systemd-networkd-wait-online.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
    systemd-pstore.service sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount
    dev-hugepages.mount dev-mqueue.mount run-lock.mount modprobe@drm.service systemd-udev-load-credentials.service
    systemd-growfs-root.service systemd-network-generator.service systemd-networkd-persistent-storage.service
    systemd-tmpfiles-setup-dev-early.service systemd-random-seed.service grub-common.service e2scrub_reap.service"
# shellcheck disable=SC2086
systemctl mask --quiet --no-reload $unused $slow 2>/dev/null || true
# They look, before all else, for what is not there: a saved memory, an update, a TPM, partitions beside those of fstab.
generators="hibernate-resume system-update tpm2 run ssh getty"
! grep -Eqs '^[^#[:space:]]+[[:space:]]+/[[:space:]]' /etc/fstab || generators="$generators gpt-auto"
mkdir -p /etc/systemd/system-generators
for generator in $generators; do
    ln -sfn /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done
# The rest of cloud-init has nothing to do.
# shellcheck disable=SC2086
systemctl stop --quiet --no-block $unused cloud-config.service cloud-final.service 2>/dev/null || true
