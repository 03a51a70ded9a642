# To be sourced: what makes any cargo build for aarch64 with the tools of cross/install.sh and run what it built under the
# emulator. The target folder is one of its own, since the compiler is another than the host builds'.
cross=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export RUSTC=/usr/local/lib/rust-debian/bin/rustc RUSTDOC=/usr/local/lib/rust-debian/bin/rustdoc
export CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu
export CARGO_TARGET_DIR="${REMOTECLIPD_ARM_TARGET_DIR:-$(dirname "$cross")/target/arm}"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$cross/emulate"
