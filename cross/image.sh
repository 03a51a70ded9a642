#!/usr/bin/env bash
# Makes the base image of cross/Dockerfile from Debian's packages, where Docker Hub can't be reached. As root.
set -euo pipefail

image=debian:bookworm-slim
if docker image inspect "$image" >/dev/null 2>&1; then
    exit
fi
if timeout 60 docker pull -q "$image" 2>/dev/null; then
    exit
fi
if ! command -v debootstrap >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends debootstrap
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase bookworm "$root" http://deb.debian.org/debian
cat >"$root/etc/apt/sources.list" <<END
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
END
rm -rf "$root"/var/cache/apt/archives/*.deb
tar -C "$root" -c . | docker import - "$image"
