#!/usr/bin/env bash
# The tests as aarch64 programs under emulation, built once:
#   cross/test.sh [--container] [CPU …] [-- ARGUMENT of cargo test …]
# Without a CPU: what runs on a board as a Cortex-A72, what depends on the CPU as each of those that a kernel exists for, and
# the parity gates on a part of the data. With CPUs: the given tests, or all that there are, as each of them.
# All but `remoteclipd demo` is built: its broker brings a hundred crates, and no board has it.
# --container builds and tests with `cross`, in the image of cross/Dockerfile, by Debian's toolchain and without network.
set -euo pipefail
cd "$(dirname "$0")/.."

container=
if [ "${1:-}" = --container ]; then
    container=yes
    shift
fi
cpus=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    cpus+=("$1")
    shift
done
[ $# -eq 0 ] || shift

cross/install.sh
if [ -n "$container" ]; then
    tools=$PWD/target/tools
    # The one waits for the network, the other for the processor.
    cross/image.sh &
    image=$!
    cargo install -q --locked --debug --root "$tools" --target-dir "$tools/build" cross@0.2.5
    wait $image
    # cross takes an active toolchain for missing and has rustup fetch it anew, which replaces it by a newer one: Debian's gets
    # a name and is not active, no fetch can succeed, and `cross --version` is not asked, for it does the same. cargo is asked
    # for `debian`, rustup for the name with the host's triple.
    export RUSTUP_DIST_SERVER=http://127.0.0.1:9
    for name in debian debian-x86_64-unknown-linux-gnu; do
        rustup toolchain link $name /usr/local/lib/rust-debian
    done
    cargo fetch -q --locked
    export CROSS_CONFIG=cross/Cross.toml CROSS_CUSTOM_TOOLCHAIN=1 CARGO_TARGET_DIR=$PWD/target/arm
    # A hundred thousand files take minutes in a container's own layer of the file system.
    options=(--tmpfs /tmp:exec)
    # The data sets that parity is proven on, beside the project, which cross mounts as /project.
    [ ! -d ../shared/data ] || options+=(-v "$(realpath ../shared/data):/shared/data:ro")
    export CROSS_CONTAINER_OPTS="${options[*]} ${CROSS_CONTAINER_OPTS:-}"
    run=("$tools/bin/cross" +debian test --offline --target aarch64-unknown-linux-gnu)
else
    tests/install
    . cross/env.sh
    run=(cargo test)
fi

export REMOTECLIPD_PARITY_PART=${REMOTECLIPD_PARITY_PART:-10} PROPTEST_CASES=${PROPTEST_CASES:-64}

# The kernel that each CPU must be given; the tests fail on another.
kernel_of() {
    case $1 in
        cortex-a53 | cortex-a72) echo neon ;;
        cortex-a76 | neoverse-n1) echo neon-dot ;;
        max) echo neon-i8mm ;;
        *) echo "cross/test.sh: which kernel should a $1 choose? known: cortex-a53 cortex-a72 cortex-a76 neoverse-n1 max" >&2 && return 1 ;;
    esac
}

# tests CPU ARGUMENT …
tests() {
    local cpu=$1 kernel
    kernel=$(kernel_of "$cpu")
    shift
    printf '\n=== as %s, kernel %s, after %d min: %s\n' "$cpu" "$kernel" $((SECONDS / 60)) "${*:-all tests}"
    # With SVE the emulator takes up to seven times as long, and no kernel of ours has any.
    [ "$cpu" != max ] || cpu=max,sve=off
    REMOTECLIPD_CPU=$cpu REMOTECLIPD_EXPECT_KERNEL=$kernel \
        "${run[@]}" --locked --profile emulated --no-default-features --features host,v4l2 "$@"
}

if [ ${#cpus[@]} -gt 0 ] || [ $# -gt 0 ]; then
    for cpu in "${cpus[@]:-cortex-a72}"; do
        tests "$cpu" "$@"
    done
    exit
fi
# What a board does, as one CPU; on the others what depends on the CPU, the A53 running the A72's kernel; parity where a board is
# most likely to be, and on another data set where the best kernel is. `cross/test.sh CPU` runs all of it as any.
board=(--lib --test broker --test cli --test golden --test mqtt --test service --test slots)
kernel_and_golden() { tests "$1" --lib int8 && tests "$1" --test golden; }
parity() { REMOTECLIPD_PARITY_PART=$(($2 * REMOTECLIPD_PARITY_PART)) tests "$1" --test parity "$3"; }
by_cpu() {
    # The first is here for the time it takes; EuroSAT has twelve times UCM's pictures.
    tests cortex-a72 --test simulated && kernel_and_golden cortex-a53 && kernel_and_golden cortex-a76 && kernel_and_golden max &&
        parity cortex-a72 1 ucm && parity max 4 eurosat
}

# Built once, then two at a time: half of the test programs keep but one core busy.
tests cortex-a72 --no-run "${board[@]}" --test simulated --test parity
log=$(mktemp)
trap 'rm -f "$log"' EXIT
by_cpu >"$log" 2>&1 &
other=$!
failed=
tests cortex-a72 "${board[@]}" || failed+=" what a board does;"
wait $other || failed+=" what depends on the CPU;"
cat "$log"
[ -z "$failed" ] || { echo "cross/test.sh: failed:$failed" >&2 && exit 1; }
