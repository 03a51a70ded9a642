#!/usr/bin/env bash
# Builds what flies:  cross/flight.sh arm64|amd64
# The last line names the program.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
    arm64)
        cross/install.sh >&2
        . cross/env.sh
        ;;
    amd64) export CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu CARGO_TARGET_DIR=$PWD/target ;;
    *) echo "usage: cross/flight.sh arm64|amd64" >&2 && exit 2 ;;
esac
# Nothing unwinds where a panic aborts. Most of the tables stay all the same, a tenth of the program (`size -A`), but not the index to them.
export RUSTFLAGS="-C force-unwind-tables=no ${RUSTFLAGS:-}"
cargo rustc --locked --profile flight --no-default-features --features device --bin remoteclipd -- \
    -C link-arg=-Wl,--no-eh-frame-hdr >&2
echo "$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/flight/remoteclipd"
