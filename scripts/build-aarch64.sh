#!/usr/bin/env bash
# Cross-builds the runtime (the `isthmus` program without the compiler) for aarch64.
# usage: scripts/build-aarch64.sh [FOLDER]     default: build-aarch64
# Run it here:  qemu-aarch64 -L "$(scripts/sysroot-aarch64.sh)" build-aarch64/bin/isthmus ...
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
source "$root/scripts/deps.sh"
sysroot=$("$root/scripts/sysroot-aarch64.sh")
prefix=$ISTHMUS_CACHE/deps-aarch64
toolchain=(-DCMAKE_TOOLCHAIN_FILE="$root/scripts/aarch64.cmake" -DISTHMUS_SYSROOT="$sysroot"
  -DISTHMUS_DEPS="$prefix")
mkdir -p "$prefix"
build_jinja "$prefix" "${toolchain[@]}"
"$root/scripts/build.sh" "${1:-$root/build-aarch64}" "${toolchain[@]}" \
  -DISTHMUS_COMPILER=OFF -DISTHMUS_TESTS=OFF
