#!/usr/bin/env bash
# Installs the amd64 package in a container that runs systemd and puts the service through what happens in the field: start,
# a broker that goes away, another bundle, a hang, stop, removal. Needs a container engine and target/deb/remoteclipd_amd64.deb
# (cross/package.sh amd64).
set -euo pipefail
cd "$(dirname "$0")/.."
deb=target/deb/remoteclipd_amd64.deb
[ -f "$deb" ] || { echo "cross/try-package.sh: no $deb; run cross/package.sh amd64" >&2 && exit 1; }

cross/image.sh
docker build -q -t remoteclipd-try - >/dev/null <<'END'
FROM debian:bookworm-slim
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends systemd mosquitto mosquitto-clients
END
name=remoteclipd-try-$$
trap 'docker rm -f "$name" >/dev/null 2>&1 || true' EXIT
docker run -d --name "$name" --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --cgroupns=private --tmpfs /run --tmpfs /tmp -v /sys/fs/cgroup:/sys/fs/cgroup:rw -e container=docker \
    remoteclipd-try /lib/systemd/systemd >/dev/null
docker cp "$deb" "$name":/opt/remoteclipd.deb >/dev/null
docker cp models/vit-tiny "$name":/opt/vit-tiny >/dev/null
docker exec -i "$name" bash -euo pipefail <<'END'
say() { printf '%-60s' "$1"; }
ok() { echo ok; }
is() { [ "$(systemctl show -p "$1" --value remoteclipd)" = "$2" ] || { echo "FAILED: $1 is not $2"; journalctl -u remoteclipd --no-pager; exit 1; }; }
trap 'echo FAILED; journalctl -u remoteclipd --no-pager -n 40' ERR
until systemctl is-system-running 2>/dev/null | grep -Eq 'running|degraded'; do sleep 0.2; done

say "the package installs, and starts nothing by itself"
dpkg -i /opt/remoteclipd.deb >/dev/null && is ActiveState inactive && ok
say "check and self-test pass as installed"
cd /usr/share/remoteclipd && remoteclipd check >/dev/null && remoteclipd bundle test >/dev/null && ok
say "the service becomes ready"
mkdir -p /etc/systemd/system/remoteclipd.service.d
printf '[Service]\nWatchdogSec=4\n' >/etc/systemd/system/remoteclipd.service.d/try.conf
systemctl daemon-reload && systemctl start remoteclipd && is ActiveState active && ok
say "a result reaches a subscriber"
timeout 20 mosquitto_sub -t 'remoteclip/v1/+/+/result' -C 1 >/dev/null && ok
say "a broker that is away does not restart it"
systemctl stop mosquitto && sleep 10 && is NRestarts 0 && systemctl start mosquitto && ok
say "another bundle is installed and taken up by a reload"
remoteclipd bundle install /opt/vit-tiny >/dev/null
sed -i 's#models/default#/var/lib/remoteclipd/bundles/current#' /etc/remoteclipd/remoteclipd.toml
systemctl reload remoteclipd
for _ in $(seq 50); do timeout 2 mosquitto_sub -t 'remoteclip/v1/+/status' -C 1 | grep -q '"name":"vit-tiny"' && break || sleep 0.2; done
mosquitto_sub -t 'remoteclip/v1/+/status' -C 1 | grep -q '"name":"vit-tiny"' && is NRestarts 0 && ok
say "a hang is found and ended by the watchdog"
kill -STOP "$(systemctl show -p MainPID --value remoteclipd)" && sleep 9 && is NRestarts 1 && is ActiveState active && ok
say "it stops cleanly"
systemctl stop remoteclipd && is Result success && ok
say "removal keeps the configuration, purging does not"
dpkg -r remoteclipd >/dev/null 2>&1 && [ -f /etc/remoteclipd/remoteclipd.toml ] && dpkg -P remoteclipd >/dev/null 2>&1 && [ ! -f /etc/remoteclipd/remoteclipd.toml ] && ok
END
