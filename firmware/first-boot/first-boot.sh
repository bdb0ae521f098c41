#!/bin/sh
# Run by cloud-init's bootcmd, with the seed's mount point as its argument: lays the machine's files down and starts
# the provisioning, which goes on by itself. Runs again, with the same outcome, until a setup has come to its end.
set -eu
seed=$1
lib=/usr/local/lib/k3s-vm

for script in report provision stop-pods k3s-ended restore-datastore follow-clock; do
    install -D -m 0755 "$seed/$script.sh" "$lib/$script"
done
"$lib/report" booted

install -D -m 0600 "$seed/release.env" "$lib/release.env"
install -D -m 0600 "$seed/k3s.yaml" /etc/rancher/k3s/config.yaml
install -D -m 0644 "$seed/sshd.conf" /etc/ssh/sshd_config.d/00-k3s-vm.conf
for unit in k3s k3s-vm-booted k3s-vm-clock k3s-vm-pods k3s-vm-provision; do
    install -D -m 0644 "$seed/$unit.service" "/etc/systemd/system/$unit.service"
done

# What a node does not use, what would change it or its clock (see follow-clock.sh) behind the developer's back, and
# root's own systemd, which every first login would wait for.
systemctl mask --quiet --now --no-block \
    apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service motd-news.timer man-db.timer \
    e2scrub_all.timer e2scrub_reap.service grub-common.service fwupd-refresh.timer \
    snapd.service snapd.socket snapd.seeded.service multipathd.service multipathd.socket \
    ua-timer.timer update-notifier-download.timer update-notifier-motd.timer \
    systemd-timesyncd.service chrony.service \
    user@0.service || true
systemctl daemon-reload
systemctl start --no-block k3s-vm-provision.service
