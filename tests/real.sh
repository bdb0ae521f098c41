#!/usr/bin/env bash
# The whole story on what users get: tests/real.sh [--mirror URL] [--image PATH]
#
# Each image of the catalogue with the k3s that the stable channel names, nothing replaced, and KVM where the host has it;
# then a table with the times that it took, for tests/bench/real.md. --mirror takes the releases of k3s from another place
# (of a file:// mirror the newest), --image takes one image instead of the catalogue's. It installs nothing.
set -euo pipefail
usage() {
    echo "usage: tests/real.sh [--mirror URL] [--image PATH]" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --mirror) export REAL_MIRROR=$2 ;;
        --image) export REAL_IMAGE=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[ ! -e "${REAL_IMAGE-}" ] || REAL_IMAGE=$(realpath "$REAL_IMAGE")
for program in cargo git qemu-system-x86_64 qemu-img; do
    command -v "$program" >/dev/null || { echo "$program is missing" >&2 && exit 1; }
done
# The images of a run and their machines are some GiB: too much for a /tmp in memory.
export TMPDIR=${TMPDIR:-/var/tmp}
cd "$(dirname "$0")/.."
exec cargo test --locked --test it -- --ignored --exact real::every_image_of_the_catalogue_with_the_stable_k3s --nocapture
