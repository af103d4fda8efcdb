#!/usr/bin/env bash
# From nothing to an answer on two devices: installs what is missing, builds, fetches
# SmolLM2-135M-Instruct, compiles it for examples/topologies/board-and-server.yaml,
# starts both device workers and the server as separate processes, and asks a question.
# usage: scripts/demo.sh ["a question"]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
question=${1:-"What is an isthmus? Answer in one sentence."}
export PATH=$root/build/bin:$PATH

echo "== Dependencies and build"
source "$root/scripts/deps.sh"
"$root/scripts/build.sh" "$root/build" | grep -E '^\[|error' || true
[ -x "$root/build/bin/isthmus-compile" ] || { echo "the build failed"; exit 1; }

echo "== Model"
model=$("$root/scripts/fetch-model.sh")
echo "$model"

echo "== Compile for two devices"
topology=$root/examples/topologies/board-and-server.yaml
bundle=$ISTHMUS_CACHE/demo/smollm2.isth
mkdir -p "$(dirname "$bundle")"
key=$(cat "$model" "$topology" "$root"/build/bin/isthmus-compile | sha256sum | cut -d' ' -f1)
if [ "$(cat "$bundle.key" 2>/dev/null)" = "$key" ] && [ -f "$bundle" ]; then
  cat "$bundle.report"
  echo "(compiled before)"
else
  isthmus compile "$model" --topology "$topology" --weights int4 -o "$bundle" | tee "$bundle.report"
  echo "$key" >"$bundle.key"
fi
echo "== Plan"
isthmus inspect "$bundle" | sed -n '/plan/,/^  blob/{/^  blob/d;p}'
echo "(the run of blocks is the one of least estimated time a token that keeps within both memory budgets)"

echo "== Workers and server"
run=$(mktemp -d)
pids=()
cleanup() { kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$run"; }
trap cleanup EXIT
wait_for() { # FILE PATTERN
  for _ in $(seq 200); do grep -q "$2" "$1" 2>/dev/null && return 0; sleep 0.1; done
  cat "$1"; exit 1
}
for device in board server; do
  isthmus worker "$bundle" --device $device --listen "unix:$run/$device.sock" --threads 1 >"$run/$device.log" 2>&1 &
  pids+=($!)
  wait_for "$run/$device.log" "listens on"
  echo "$device: process $!"
done
isthmus serve "$bundle" --port 0 --worker "unix:$run/board.sock" --worker "unix:$run/server.sock" >"$run/serve.log" 2>&1 &
pids+=($!)
wait_for "$run/serve.log" "serving"
cat "$run/serve.log"
url=$(grep -oE 'http://[^ ]+' "$run/serve.log")

echo "== Question"
echo "$question"
"$ISTHMUS_CACHE/venv/bin/python" - "$url" "$question" <<'PY'
import sys
import time

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none")
start, first, count = time.monotonic(), None, 0
for chunk in client.chat.completions.create(model=client.models.list().data[0].id, temperature=0, max_tokens=120,
                                            messages=[{"role": "user", "content": sys.argv[2]}], stream=True):
    text = chunk.choices[0].delta.content if chunk.choices else None
    if text:
        first = first or time.monotonic()
        count += 1
        print(text, end="", flush=True)
end = time.monotonic()
print(f"\n== {first - start:.2f} s to the first token, {(count - 1) / (end - first):.0f} tokens/s after it")
PY
echo "The bundle lies at $bundle"
echo "Talk to it: $root/build/bin/isthmus chat $bundle"
