#!/usr/bin/env bash
# The test command: all that is needed from a fresh Debian machine with Rust to a verdict.
#
# Installs the Debian packages that the tests need, builds a real guest from packages (kept under target/guest), and runs
# formatting, lints and all tests. The last line counts them. `tests/run.sh faults` makes only the faults happen, and more of
# them than there is time for beside the rest; either way the table of those that were tried is printed and compared with
# the README's.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
log=$CARGO_TARGET_DIR/tests.log
filter=${1:-}

say() { printf '\n== %s (after %d min)\n' "$*" $((SECONDS / 60)); }
trap 'jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true' EXIT

install_packages() {
    local wanted=(
        qemu-system-x86 qemu-utils ovmf dosfstools util-linux git gcc iproute2 procps strace openssh-client skopeo systemd
        tmux zstd zsh fish tinyproxy docker-registry openssl
    )
    read -ra guest < <(tests/guest/build.sh --packages)
    command -v kubectl >/dev/null || wanted+=(kubernetes-client)
    local missing=()
    for package in "${wanted[@]}" "${guest[@]}"; do
        dpkg-query --show --showformat '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install --yes -qq --no-install-recommends "${missing[@]}" >/dev/null
}

say "packages"
install_packages
qemu-system-x86_64 --version | sed -n 1p
kubectl version --client 2>/dev/null | sed -n 1p
cargo --version

say "the guest's images and QEMU 10, beside the build"
mkdir -p "$CARGO_TARGET_DIR"
{
    tests/guest/build.sh "$CARGO_TARGET_DIR/guest"
    tests/guest/generic.sh "$CARGO_TARGET_DIR/guest"
    tests/qemu10.sh "$CARGO_TARGET_DIR/qemu10"
} >"$log.guest" 2>&1 &
guest=$!

if [ -z "$filter" ]; then
    say "formatting and lints"
    cargo fmt --check
    cargo clippy --locked --quiet --all-targets -- --deny warnings
fi

say "build"
cargo build --locked --quiet --bins --examples --tests
wait "$guest" || { cat "$log.guest" && false; }

say "tests"
rm -f "$CARGO_TARGET_DIR/tmp/faults.tsv" "$log"
verdict=0
options=(--test-threads=1)
[ ! -x "$CARGO_TARGET_DIR/qemu10/bin/qemu-system-x86_64" ] || options+=(--include-ignored)
it=(cargo test --locked --test it -- "${options[@]}")
if [ -z "$filter" ]; then
    cargo test --locked --no-fail-fast --lib --bins --examples 2>&1 | tee "$log" || verdict=$?
    # One emulated guest at a time, for two are slower than one after the other. What boots nothing takes what is left of the
    # processors meanwhile.
    everyday=(everyday:: faults::copies faults::guest)
    nice -n 10 "${it[@]}" faults:: hostile:: "${everyday[@]/#/--skip=}" >"$log.faults" 2>&1 &
    faults=$!
    "${it[@]}" --nocapture --skip everyday:: --skip faults:: --skip hostile:: 2>&1 | tee --append "$log" || verdict=$?
    # The everyday is QEMU 10's, where there is one.
    PATH=$CARGO_TARGET_DIR/qemu10/bin:$PATH "${it[@]}" --nocapture "${everyday[@]}" 2>&1 | tee --append "$log" || verdict=$?
    say "what was tried beside it"
    wait "$faults" || verdict=$?
    tee --append "$log" <"$log.faults"
else
    K3S_VM_ALL_FAULTS=1 "${it[@]}" --nocapture "$filter" 2>&1 | tee --append "$log" || verdict=$?
fi

if [ -z "$filter" ] || [ "$filter" = faults ]; then
    say "the faults that were tried"
    tests/faults-table.sh print
    tests/faults-table.sh check || verdict=1
fi

if [ "$verdict" != 0 ]; then
    say "what failed"
    grep --text -A 3 'panicked at' "$log" | cut -c -500 || true
fi

say "in all"
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$verdict"
