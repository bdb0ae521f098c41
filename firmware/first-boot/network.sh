#!/bin/sh
# network configure: writes the configuration of the card for whichever of systemd-networkd, NetworkManager and dhclient
# the image has, and resolv.conf where none of them keeps it.
# network up: gives the card its address and route now, for an image in which nothing has done so.
#
# User networking gives every guest the same addresses, and every machine's card has the same hardware address (MAC in
# src/qemu/command_line.rs), so that what is written here stays right for each machine that begins from this disk.
set -eu
mac=52:54:00:12:34:56
address=10.0.2.15
gateway=10.0.2.2
# The DNS servers to use, as in resolv.conf(5): user networking's own until the host has sent others.
servers=/etc/k3s-vm/resolv.conf
[ -s "$servers" ] || {
    mkdir -p "${servers%/*}"
    echo "nameserver 10.0.2.3" >"$servers"
}

# dns: prints the servers, one a line.
dns() {
    sed -n 's/^nameserver //p' "$servers"
}

# write MODE FILE: makes the file from standard input; fails when it was there with that content.
write() {
    content=$(cat)
    [ "$content" != "$(cat "$2" 2>/dev/null)" ] || return 1
    mkdir -p "${2%/*}"
    (umask 077 && echo "$content" >"$2.new")
    chmod "$1" "$2.new"
    mv "$2.new" "$2"
}

for_networkd() {
    echo "[Match]
MACAddress=$mac

[Network]
Address=$address/24
Gateway=$gateway"
    dns | sed 's/^/DNS=/'
}

for_network_manager() {
    echo "[connection]
id=k3s-vm
type=ethernet
autoconnect-priority=999

[ethernet]
mac-address=$mac

[ipv4]
method=manual
address1=$address/24,$gateway
dns=$(dns | grep -v : | tr '\n' ';')

[ipv6]
method=auto
addr-gen-mode=eui64
dns=$(dns | grep : | tr '\n' ';')"
}

for_dhclient() {
    echo "# The host says which DNS servers to use, not DHCP.
make_resolv_conf() {
    cp $servers /etc/resolv.conf
}"
}

# Where it is a link, a service keeps the file, and has its configuration from above.
write_resolv_conf() {
    [ ! -e /etc/resolv.conf ] || [ ! -L /etc/resolv.conf ] || return 0
    [ ! -d /etc/NetworkManager ] || return 0
    rm -f /etc/resolv.conf
    cp "$servers" /etc/resolv.conf
    chmod 0644 /etc/resolv.conf
}

configure() {
    if systemctl is-enabled --quiet systemd-networkd.service 2>/dev/null; then
        # By its name it comes before netplan's and most others: the first that matches counts.
        ! for_networkd | write 0644 /etc/systemd/network/10-k3s-vm.network ||
            systemctl try-restart --no-block systemd-networkd.service
    fi
    if [ -d /etc/NetworkManager ]; then
        profile=/etc/NetworkManager/system-connections/k3s-vm.nmconnection
        # NetworkManager finds it when it starts, and may not run yet.
        ! for_network_manager | write 0600 "$profile" ||
            { nmcli connection load "$profile" && nmcli --wait 0 connection up k3s-vm; } >/dev/null 2>&1 || true
    fi
    [ ! -d /etc/dhcp ] || for_dhclient | write 0644 /etc/dhcp/dhclient-enter-hooks.d/k3s-vm || true
    write_resolv_conf
}

up() {
    for card in /sys/class/net/*; do
        found=
        [ ! -e "$card/address" ] || read -r found <"$card/address"
        [ "$found" = "$mac" ] || continue
        command -v ip >/dev/null || { echo "the image lacks ip (iproute2)" >&2 && return 1; }
        ip link set dev "${card##*/}" up
        ip -4 address replace "$address/24" dev "${card##*/}"
        ip -4 route replace default via "$gateway" dev "${card##*/}"
        # shellcheck disable=SC2046
        ! command -v resolvectl >/dev/null || resolvectl dns "${card##*/}" $(dns) 2>/dev/null || true
        write_resolv_conf
        return
    done
    echo "no network card has the address $mac" >&2
    return 1
}

"$1"
