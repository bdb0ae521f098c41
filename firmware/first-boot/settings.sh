#!/bin/sh
# settings ARCHIVE: lays down the files that the guest is set to, and takes those away that it no longer is.
set -eu
list=/etc/k3s-vm/settings
umask 022
mkdir -p "${list%/*}"
# Until it is done, all of them are known.
{
    cat "$list" 2>/dev/null || true
    tar -tf "$1" | grep -v '/$'
} | sort -u >"$list.all"
mv "$list.all" "$list"
certificates=$(grep -c '^usr/local/share/ca-certificates/' "$list" || true)
network=$(grep -c '^etc/systemd/network/' "$list" || true)
units=$(grep -c '^etc/systemd/system/' "$list" || true)
while read -r file; do
    rm -f "/$file"
done <"$list"
tar -C / -xpf "$1"
tar -tf "$1" | grep -v '/$' >"$list.now"
mv "$list.now" "$list"

# What update-ca-certificates(8) does, without its 700 processes, on which an emulated guest is for minutes.
trust() {
    [ -e /etc/ca-certificates.conf ] || return 1
    ours=/usr/local/share/ca-certificates
    all=/etc/ssl/certs
    find "$all" -lname 'k3s-vm-*.pem' -delete
    rm -f "$all"/k3s-vm-*.pem
    for certificate in "$ours"/k3s-vm-*.crt; do
        [ -e "$certificate" ] || continue
        name=$(basename "$certificate" .crt).pem
        # "set -e" does not hold in what stands before an "||".
        hash=$(openssl x509 -noout -hash -in "$certificate") || return 1
        number=0
        while [ -e "$all/$hash.$number" ]; do
            number=$((number + 1))
        done
        ln -s "$certificate" "$all/$name"
        ln -s "$name" "$all/$hash.$number"
    done
    {
        sed -n 's,^[^#!],/usr/share/ca-certificates/&,p' /etc/ca-certificates.conf
        find "$ours" -name '*.crt'
    } | xargs -d '\n' sed -s '$a\' >"$all/ca-certificates.crt.new"
    mv "$all/ca-certificates.crt.new" "$all/ca-certificates.crt"
}
if [ "$certificates" -gt 0 ]; then
    # "fresh" takes away those that are gone.
    trust || update-ca-certificates --fresh >/dev/null 2>&1
fi
if [ "$units" -gt 0 ]; then
    systemctl daemon-reload
fi
# Early in a boot it may not run yet.
if [ "$network" -gt 0 ]; then
    systemctl try-restart --no-block systemd-networkd.service
fi
