#!/usr/bin/env bash
# qemu10.sh OUT_DIR: puts QEMU 10 beside the host's own QEMU, as OUT_DIR/bin/qemu-system-x86_64. Nothing is installed.
#
# Debian 12 ships QEMU 7.2 and has 10.0 in its backports. The packages are fetched through an apt configuration of their
# own (the host's mirror, the backports suite) and unpacked. Its libraries are those of the host's own qemu-system-x86.
set -euo pipefail
out=$1
packages=(qemu-system-x86 qemu-system-common qemu-system-data seabios)

[ ! -x "$out/bin/qemu-system-x86_64" ] || exit 0
. /etc/os-release
if [ "${VERSION_CODENAME-}" != bookworm ]; then
    echo "QEMU 10 is fetched on Debian 12 alone; here the host's own QEMU is tested" >&2
    exit 0
fi
parent=$(dirname "$out")
mkdir -p "$parent"
work=$(mktemp -d "$(cd "$parent" && pwd)/qemu10.XXXXXX")
trap 'rm -rf "$work"' EXIT
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "bookworm" && !seen++ { print $2 }')}

mkdir -p "$work/lists/partial" "$work/debs" "$work/out/bin"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$work/lists";
APT::Sandbox::User "";
CONF
export APT_CONFIG=$work/apt.conf
apt-get update -qq
(cd "$work/debs" && apt-get download -qq "${packages[@]}")
for deb in "$work"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$work/out"
done

# QEMU looks for its firmware and modules where the package would have put them.
cat >"$work/out/bin/qemu-system-x86_64" <<'WRAPPER'
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")
export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
exec "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
WRAPPER
chmod +x "$work/out/bin/qemu-system-x86_64"
"$work/out/bin/qemu-system-x86_64" --version | sed -n 1p
mv "$work/out" "$out"
