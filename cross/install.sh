#!/usr/bin/env bash
# Installs what builds and runs aarch64 programs on Debian 12 (amd64): a Rust toolchain with the standard libraries of both,
# a cross linker with its C library, an emulator. As root or through sudo; running it again changes nothing. The machine and
# the container image of cross/Dockerfile are both made by this script.
set -euo pipefail

# Debian's compiler, seen through a folder laid out as rustup lays out a toolchain, which the arm64 library is added to.
toolchain=/usr/local/lib/rust-debian
packages=(rustc-web cargo-web gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)

. /etc/os-release
if [ "${ID:-}-${VERSION_ID:-}" != debian-12 ] || [ "$(dpkg --print-architecture)" != amd64 ]; then
    echo "cross/install.sh: made for Debian 12 on amd64, not for ${PRETTY_NAME:-this system}; elsewhere use rustup and cross (docs/guide/boards.md)" >&2
    exit 1
fi
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = "ii " ]; }

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
version() { dpkg-query -W -f '${Version}' rustc-web 2>/dev/null || true; }
complete() { [ "$(cat "$toolchain/version" 2>/dev/null)" = "$(version)" ]; }
if [ ${#missing[@]} -gt 0 ] || ! complete; then
    as_root dpkg --add-architecture arm64
    as_root apt-get update -q
fi
if [ ${#missing[@]} -gt 0 ]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"
fi
if dpkg --compare-versions "$(version)" lt 1.91; then
    echo "cross/install.sh: rustc-web is $(version), remoteclipd needs 1.91: add bookworm-security to apt's sources" >&2
    exit 1
fi

if ! complete; then
    # The library must be of the compiler's very version. Installing its package would bring another architecture's C
    # library and LLVM, which a cross build must not see: it is unpacked alone.
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "libstd-rust-web-dev:arm64=$(version)" && dpkg -x libstd-rust-web-dev_*_arm64.deb std)
    new=$work/toolchain
    mkdir -p "$new/bin" "$new/lib/rustlib"
    mv "$work/std/usr/lib/rustlib/aarch64-unknown-linux-gnu" "$new/lib/rustlib/"
    ln -s /usr/lib/rustlib/x86_64-unknown-linux-gnu "$new/lib/rustlib/"
    ln -s /usr/bin/cargo "$new/bin/cargo"
    for program in rustc rustdoc; do
        printf '#!/bin/sh\nexec /usr/bin/%s --sysroot "$(cd "${0%%/*}/.." && pwd)" "$@"\n' $program >"$new/bin/$program"
        chmod +x "$new/bin/$program"
    done
    version >"$new/version"
    as_root rm -rf "$toolchain"
    as_root cp -r "$new" "$toolchain"
fi
echo "rustc $(version) for amd64 and arm64 in $toolchain"
