#!/usr/bin/env bash
# Installs what isthmus builds and tests with, on Debian 12: apt packages, a Python
# environment, and the pinned source distributions, the last two into a cache outside
# the source tree. Prints nothing but progress; safe to run again (a second run checks
# stamps and returns). `source scripts/deps.sh` also sets ISTHMUS_CACHE.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ISTHMUS_CACHE=${ISTHMUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isthmus}
deps=$ISTHMUS_CACHE/deps
venv=$ISTHMUS_CACHE/venv
mkdir -p "$deps" "$ISTHMUS_CACHE/downloads"

packages=(
  # toolchain and compiler libraries
  clang-22 clang-format-22 lld-22 liblld-22-dev llvm-22-dev llvm-22-tools
  libmlir-22-dev mlir-22-tools libclang-rt-22-dev cmake ninja-build ccache
  pkg-config g++ zlib1g-dev libzstd-dev
  # libraries (docs/dependencies.md)
  libfmt-dev libcli11-dev libyaml-cpp-dev nlohmann-json3-dev libboost-dev
  libssl-dev libprotobuf-dev protobuf-compiler libpcre2-dev libutf8proc-dev
  libpng-dev libturbojpeg0-dev
  # tests
  libgtest-dev qemu-user
  python3-venv python3-pip git ca-certificates)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
    missing+=("$package")
done
if ((${#missing[@]})); then
  echo "deps: installing ${missing[*]}"
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  for attempt in 1 2 3; do
    $sudo apt-get update -qq &&
      $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${missing[@]}" >"$ISTHMUS_CACHE/apt.log" 2>&1 &&
      break
    [ "$attempt" = 3 ] && { tail -20 "$ISTHMUS_CACHE/apt.log"; exit 1; }
    sleep $((attempt * 10))
  done
fi

# stamped NAME INPUT...: true if the stamp of NAME matches a digest of the inputs.
stamp_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

python_stamp=$(stamp_of "$root/scripts/requirements.txt")
if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$python_stamp" ]; then
  echo "deps: making the Python environment"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check --retries 5 \
    -r "$root/scripts/requirements.txt"
  echo "$python_stamp" >"$venv/.stamp"
fi

# fetch_sdist NAME VERSION SHA256: downloads a source distribution, checks it.
fetch_sdist() {
  local file=$ISTHMUS_CACHE/downloads/${1//-/_}-$2.tar.gz
  for attempt in 1 2 3; do
    if [ -f "$file" ] && echo "$3  $file" | sha256sum -c --quiet - 2>/dev/null; then
      return 0
    fi
    rm -f "$file"
    echo "deps: fetching $1 $2"
    "$venv/bin/unearth" --no-binary -d "$ISTHMUS_CACHE/downloads" -- "$1==$2" >/dev/null || true
  done
  [ -f "$file" ] && echo "$3  $file" | sha256sum -c --quiet - && return 0
  echo "deps: $1 $2 could not be fetched, or its digest is wrong" >&2
  return 1
}

# build_jinja PREFIX [CMAKE-OPTION...]: the engine of chat templates, which is inside
# llama.cpp, as a static library.
build_jinja() {
  local prefix=$1 stamp work
  shift
  stamp=$(stamp_of "$root/scripts/jinja.cmake")
  [ "$(cat "$prefix/.jinja" 2>/dev/null)" = "$stamp" ] && return 0
  fetch_sdist llama-cpp-python 0.3.36 \
    832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e || return 1
  echo "deps: building the Jinja engine"
  work=$(mktemp -d)
  tar xzf "$ISTHMUS_CACHE/downloads/llama_cpp_python-0.3.36.tar.gz" -C "$work" \
    --wildcards '*/vendor/llama.cpp/common/*' '*/vendor/llama.cpp/LICENSE'
  cp "$root/scripts/jinja.cmake" "$work/CMakeLists.txt"
  if ! { cmake -S "$work" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_CXX_COMPILER=clang++-22 -DCMAKE_INSTALL_PREFIX="$prefix" \
      -DCOMMON="$work/llama_cpp_python-0.3.36/vendor/llama.cpp/common" "$@" &&
    cmake --build "$work/build" --target install; } >"$work/log" 2>&1; then
    tail -30 "$work/log"
    return 1
  fi
  rm -rf "$work"
  echo "$stamp" >"$prefix/.jinja"
}
# build_onnx PREFIX: the ONNX C++ library. Two minutes on two cores.
build_onnx() {
  local prefix=$1 stamp work
  stamp=$(stamp_of "$root/scripts/onnx.cmake")
  [ "$(cat "$prefix/.onnx" 2>/dev/null)" = "$stamp" ] && return 0
  fetch_sdist onnx 1.23.2 \
    008cb0467b2bbee41448acc7da8b6f4e704624cb0d327a2d5adafc7ce19bc5b8 || return 1
  echo "deps: building the ONNX library"
  work=$(mktemp -d)
  tar xzf "$ISTHMUS_CACHE/downloads/onnx-1.23.2.tar.gz" -C "$work"
  cp "$root/scripts/onnx.cmake" "$work/CMakeLists.txt"
  if ! { cmake -S "$work" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_CXX_COMPILER=clang++-22 -DCMAKE_INSTALL_PREFIX="$prefix" \
      -DONNX="$work/onnx-1.23.2" &&
    cmake --build "$work/build" --target install; } >"$work/log" 2>&1; then
    tail -30 "$work/log"
    return 1
  fi
  rm -rf "$work"
  echo "$stamp" >"$prefix/.onnx"
}

build_jinja "$deps"
build_onnx "$deps"
