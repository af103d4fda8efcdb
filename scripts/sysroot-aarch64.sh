#!/usr/bin/env bash
# Makes a folder with the arm64 libraries of this Debian release, for cross-building the
# runtime with clang and running it under qemu-user. Nothing foreign is installed into the
# system: apt checks and fetches the packages with a state of its own, and they are
# unpacked into the cache. Prints the folder. usage: scripts/sysroot-aarch64.sh
set -euo pipefail
cache=${ISTHMUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isthmus}
sysroot=$cache/sysroot-aarch64

packages=(libc6 libc6-dev libcrypt1 linux-libc-dev libgcc-s1 libgcc-12-dev libstdc++6
  libstdc++-12-dev libfmt9 libfmt-dev libprotobuf32 libprotobuf-dev libssl3 libssl-dev
  zlib1g zlib1g-dev libpcre2-8-0 libpcre2-dev libutf8proc2 libutf8proc-dev
  libpng16-16 libpng-dev libturbojpeg0 libturbojpeg0-dev
  libboost1.74-dev libcli11-dev nlohmann-json3-dev)

stamp=$(sha256sum "${BASH_SOURCE[0]}" | cut -d' ' -f1)
if [ "$(cat "$sysroot/.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "fetching the arm64 libraries" >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{lists/partial,cache/archives/partial,debs}
  touch "$work/status"
  arm_apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
      -o Dir::State="$work" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
      -o APT::Sandbox::User="$(id -un)" "$@"
  }
  for attempt in 1 2 3; do
    arm_apt update && (cd "$work/debs" && arm_apt download "${packages[@]}") && break
    [ "$attempt" = 3 ] && { echo "the arm64 packages could not be fetched" >&2; exit 1; }
    sleep $((attempt * 10))
  done
  rm -rf "$sysroot"
  mkdir -p "$sysroot"
  for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$sysroot"; done
  echo "$stamp" >"$sysroot/.stamp"
fi
echo "$sysroot"
