#!/usr/bin/env bash
# As root on Debian: install the real broker, the browser, what makes the TimescaleDB root, and foreign clients of the wire. Elsewhere: say what is missing.
set -euo pipefail
wanted=()
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || wanted+=(mosquitto)
command -v chromium >/dev/null || wanted+=(chromium)
command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] || wanted+=(debootstrap)
command -v softhsm2-util >/dev/null || wanted+=(softhsm2)
command -v pdftoppm >/dev/null || wanted+=(poppler-utils)
command -v mosquitto_pub >/dev/null || wanted+=(mosquitto-clients)
command -v cc >/dev/null || wanted+=(gcc libc6-dev)
[ -e /usr/include/modbus/modbus.h ] || wanted+=(libmodbus-dev)
[ ${#wanted[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "test services: installing ${wanted[*]} …"
  export DEBIAN_FRONTEND=noninteractive
  # A service that apt starts by itself would take the port and be nobody's child.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; trap 'rm -f "$policy"' EXIT; fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
elif [ -n "${CI:-}" ]; then
  echo "test services: ${wanted[*]} missing, and CI must have them" >&2
  exit 1
else
  echo "test services: not installed here: ${wanted[*]}. Their tests are skipped; as root on Debian they are installed by themselves."
fi
