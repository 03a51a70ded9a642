#!/usr/bin/env bash
# The tests of the device build, as aarch64 programs under emulation:
#   cross/test.sh [--container] [CPU …] [-- ARGUMENT of cargo test …]
# Without a CPU: everything as cortex-a72, then what depends on the CPU (the int8 kernels, the golden frames) as
# cortex-a53, cortex-a76 and max. With CPUs: the given tests, or everything, as each of them. Built once.
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

features=(--no-default-features --features device)
cross/install.sh
if [ -n "$container" ]; then
    tools=$PWD/target/tools
    if [ "$("$tools/bin/cross" --version 2>/dev/null | head -1)" != "cross 0.2.5" ]; then
        cargo install -q --locked --root "$tools" --target-dir "$tools/build" cross@0.2.5
    fi
    cross/image.sh
    # cross asks rustup for toolchains by name and takes an active one for missing, so Debian's gets a name and is not active.
    rustup toolchain link debian-x86_64-unknown-linux-gnu /usr/local/lib/rust-debian
    cargo fetch -q --locked
    export CROSS_CONFIG=cross/Cross.toml CROSS_CUSTOM_TOOLCHAIN=1 CARGO_TARGET_DIR=$PWD/target/arm
    run=("$tools/bin/cross" +debian test --locked --offline --target aarch64-unknown-linux-gnu)
else
    . cross/env.sh
    run=(tests/run)
fi

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
    printf '\n=== as %s, kernel %s: %s\n' "$cpu" "$kernel" "${*:-all tests}"
    REMOTECLIPD_CPU=$cpu REMOTECLIPD_EXPECT_KERNEL=$kernel "${run[@]}" "${features[@]}" "$@"
}

if [ ${#cpus[@]} -gt 0 ]; then
    for cpu in "${cpus[@]}"; do
        tests "$cpu" "$@"
    done
    exit
fi
tests cortex-a72 "$@"
[ $# -eq 0 ] || exit 0
for cpu in cortex-a53 cortex-a76 max; do
    tests "$cpu" --lib int8
    tests "$cpu" --test golden
done
