#!/usr/bin/env bash
# Configures and builds into a folder (default: build). Dependencies come from
# scripts/deps.sh. usage: scripts/build.sh [FOLDER [CMAKE-OPTION...]]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
source "$root/scripts/deps.sh"
folder=${1:-$root/build}
shift || true
export CCACHE_DIR=${CCACHE_DIR:-$ISTHMUS_CACHE/ccache}
# Precompiled headers and relative paths are safe to share between builds.
export CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_BASEDIR=$root
cmake -S "$root" -B "$folder" -G Ninja \
  -DCMAKE_C_COMPILER=clang-22 -DCMAKE_CXX_COMPILER=clang++-22 \
  -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
  -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld \
  -DMLIR_DIR=/usr/lib/llvm-22/lib/cmake/mlir \
  -DLLD_DIR=/usr/lib/llvm-22/lib/cmake/lld \
  -DISTHMUS_DEPS="$ISTHMUS_CACHE/deps" "$@" >"$folder.configure.log" 2>&1 ||
  { tail -30 "$folder.configure.log"; exit 1; }
rm -f "$folder.configure.log"
cmake --build "$folder"
