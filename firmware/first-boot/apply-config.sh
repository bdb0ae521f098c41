#!/bin/sh
# apply-config ARCHIVE: installs the files of the guest's configuration, and removes those of the last one that are not in it.
set -eu
list=/etc/k3s-vm/config-files
umask 022
mkdir -p "${list%/*}"
# Until it is done, the list has the files of both.
{
    cat "$list" 2>/dev/null || true
    tar -tf "$1" | grep -v '/$'
} | sort -u >"$list.all"
mv "$list.all" "$list"
certificates=$(grep -c '^usr/local/share/ca-certificates/' "$list" || true)
units=$(grep -c '^etc/systemd/system/' "$list" || true)
while read -r file; do
    rm -f "/$file"
done <"$list"
tar -C / -xpf "$1"
tar -tf "$1" | grep -v '/$' >"$list.now"
mv "$list.now" "$list"

ours=/usr/local/share/ca-certificates
links=/etc/k3s-vm/certificates
# trust_debian: what update-ca-certificates(8) of Debian does, without its 700 processes, which take an emulated guest
# minutes. The links that were made are in a list, one a line.
trust_debian() {
    [ -e /etc/ca-certificates.conf ] && command -v openssl >/dev/null || return 1
    all=/etc/ssl/certs
    touch "$links"
    while read -r link; do
        rm -f "$all/$link"
    done <"$links"
    : >"$links"
    for certificate in "$ours"/k3s-vm-*.crt; do
        [ -e "$certificate" ] || continue
        name=${certificate##*/}
        name=${name%.crt}.pem
        # "set -e" does not hold in what stands before an "||".
        hash=$(openssl x509 -noout -hash -in "$certificate") || return 1
        number=0
        while [ -e "$all/$hash.$number" ]; do
            number=$((number + 1))
        done
        ln -sf "$certificate" "$all/$name"
        ln -s "$name" "$all/$hash.$number"
        printf '%s\n' "$name" "$hash.$number" >>"$links"
    done
    # grep ends each file's last line.
    {
        sed -n 's,^[^#!],/usr/share/ca-certificates/&,p' /etc/ca-certificates.conf
        find "$ours" -name '*.crt'
    } | xargs grep -h '' >"$all/ca-certificates.crt.new"
    mv "$all/ca-certificates.crt.new" "$all/ca-certificates.crt"
}
# trust_anchors FOLDER COMMAND: as distributions with p11-kit have it.
trust_anchors() {
    [ -d "$1" ] && command -v "$2" >/dev/null || return 1
    rm -f "$1"/k3s-vm-*.crt
    for certificate in "$ours"/k3s-vm-*.crt; do
        [ ! -e "$certificate" ] || cp "$certificate" "$1/"
    done
    "$2" >/dev/null 2>&1
}
if [ "$certificates" -gt 0 ]; then
    trust_debian || trust_anchors /etc/pki/ca-trust/source/anchors update-ca-trust ||
        trust_anchors /etc/pki/trust/anchors update-ca-certificates ||
        update-ca-certificates --fresh >/dev/null 2>&1 || {
        echo "the image has no update-ca-certificates and no update-ca-trust to trust a certificate with" >&2
        exit 1
    }
fi
if [ "$units" -gt 0 ]; then
    systemctl daemon-reload
fi
/usr/local/lib/k3s-vm/network configure
