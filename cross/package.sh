#!/usr/bin/env bash
# Builds what flies and packages it:  cross/package.sh arm64|amd64
# The .deb and the binary within are checked, and the last line names the package.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-}
case $arch in
    arm64) triple=aarch64-unknown-linux-gnu machine=AArch64 most=12000000 ;;
    # tract brings kernels for each of x86-64's extensions, and so do we.
    amd64) triple=x86_64-unknown-linux-gnu machine=X86-64 most=$((17 << 20)) ;;
    *) echo "usage: cross/package.sh arm64|amd64" >&2 && exit 2 ;;
esac

tools=$PWD/target/tools
if [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != 3.8.0 ]; then
    cargo install -q --locked --root "$tools" --target-dir "$tools/build" --no-default-features cargo-deb@3.8.0
fi
program=$(cross/flight.sh "$arch" | tail -1)
mkdir -p target/deb
deb=$PWD/target/deb/remoteclipd_$arch.deb
CARGO_TARGET_DIR=${program%/"$triple"/flight/remoteclipd} "$tools/bin/cargo-deb" --no-build --no-strip --profile flight --target "$triple" --output "$deb"

fail() { echo "cross/package.sh: $*" >&2 && exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
dpkg -x "$deb" "$root"
binary=$root/usr/bin/remoteclipd
[ "$(dpkg-deb -f "$deb" Architecture)" = "$arch" ] || fail "the package is of another architecture"
LC_ALL=C readelf -h "$binary" | grep -q "Machine:.*$machine" || fail "the binary is not for $machine"
bytes=$(stat -c %s "$binary")
[ "$bytes" -le "$most" ] || fail "the binary takes $bytes bytes, more than $most"
foreign=$(LC_ALL=C readelf -d "$binary" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -Ev '^(libc|libm|libgcc_s|ld-linux-(aarch64|x86-64))\.so' || true)
[ -z "$foreign" ] || fail "the binary needs libraries that the package does not ask for: $foreign"
glibc=$(LC_ALL=C readelf -V "$binary" | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -1)
asked=$(dpkg-deb -f "$deb" Depends | sed 's/.*libc6 (>= \([0-9.]*\)).*/\1/')
dpkg --compare-versions "${glibc#GLIBC_}" le "$asked" || fail "the binary needs $glibc, the package asks for $asked"
for file in etc/remoteclipd/remoteclipd.toml usr/lib/systemd/system/remoteclipd.service \
    usr/share/remoteclipd/models/default/{manifest.toml,image.onnx,golden.json}; do
    [ -s "$root/$file" ] || fail "the package lacks /$file"
done

# The unit, where systemd's own tools are there to judge it. They look the programs up in the same root.
if command -v systemd-analyze >/dev/null; then
    mkdir -p "$root/bin" && cp /bin/sh "$root/bin/"
    systemd-analyze verify --man=no --recursive-errors=no --root="$root" remoteclipd.service
    systemd-analyze security --no-pager --offline=yes --threshold=20 "$root/usr/lib/systemd/system/remoteclipd.service" | tail -1
fi
echo "binary: $bytes bytes, needs $glibc"
echo "$deb"
