#!/usr/bin/env bash
# Builds and installs the peers that peers.py measures, outside the project, for this CPU
# at their fastest setting: llama.cpp (native, repacking), onnxruntime-genai, OpenVINO GenAI,
# CTranslate2 (in ort's environment, from its model). About half an hour on two cores.
# usage: PEERS=DIR benchmarks/setup_peers.sh [llama] [avx2] [ort] [ov] [ct2]
set -euo pipefail
: "${PEERS:?set PEERS to a folder outside the project}"
root=$(cd "$(dirname "$0")/.." && pwd)
source "$root/scripts/deps.sh"
mkdir -p "$PEERS/model"
cd "$PEERS"
model=model/SmolLM2-135M-Instruct
ln -sf "$("$root/scripts/fetch-model.sh")" "$model.Q4_1.gguf"

llama_build() { # FOLDER OPTION...
  [ -d src ] || { mkdir src && tar xzf "$ISTHMUS_CACHE/downloads/llama_cpp_python-0.3.36.tar.gz" -C src; }
  local folder=$1
  shift
  cmake -S src/llama_cpp_python-*/vendor/llama.cpp -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=OFF "$@"
  ninja -C "$folder" llama-bench llama-batched-bench llama-quantize llama-perplexity
}
llama() {
  fetch_sdist llama-cpp-python 0.3.36 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
  local with=()
  # What gcc 12 makes of its code for AMX ends in an illegal instruction.
  if grep -qw amx_tile /proc/cpuinfo; then
    with=(-DCMAKE_C_COMPILER=clang-22 -DCMAKE_CXX_COMPILER=clang++-22 -DGGML_OPENMP=OFF)
  fi
  llama_build build-llama -DGGML_NATIVE=ON "${with[@]}"
}
avx2() { # the same without AVX-512
  llama_build build-llama-avx2 -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON \
    -DGGML_BMI2=ON -DGGML_AVX512=OFF
}
ort() { # needs torch and transformers to export the model once
  python3 -m venv venv-ort
  venv-ort/bin/pip install -q onnxruntime-genai==0.18.0 onnx onnx_ir gguf transformers accelerate torch ml_dtypes pillow onnxscript
  venv-ort/bin/python "$root/benchmarks/dequantise.py" "$model.Q4_1.gguf" model/hf-f32
  for precision in fp32 int8 int4; do
    venv-ort/bin/python -m onnxruntime_genai.models.builder -i model/hf-f32 -o "model/ort/$precision" -p "$precision" -e cpu --extra_options prune_lm_head=true int4_block_size=32 int4_accuracy_level=4
  done
}
ov() {
  python3 -m venv venv-ov
  venv-ov/bin/pip install -q openvino==2026.4.1 openvino-genai==2026.4.1.0 nncf==3.4.0
}
ct2() { # after ort
  venv-ort/bin/pip install -q ctranslate2==4.8.5
  for type in float32 int8; do
    venv-ort/bin/ct2-transformers-converter --model model/hf-f32 --output_dir "model/ct2/$type" --quantization "$type" --force
  done
}
for step in "${@:-llama ort ov ct2}"; do for s in $step; do $s; done; done
