#!/usr/bin/env bash
# Builds the same guest with the kernel for all computers instead of the one for clouds, which lacks 9p: what Debian
# publishes as "generic" beside "genericcloud".
#
#   generic.sh OUT_DIR   builds unless it is there already; prints the image's path (progress goes to stderr)
set -euo pipefail
recipe=$(mktemp)
trap 'rm -f "$recipe"' EXIT
sed 's/linux-image-cloud-amd64/linux-image-amd64/; s/genericcloud/generic/g' "$(dirname "$0")/build.sh" >"$recipe"
bash "$recipe" "$@"
