#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Prints one closing line:
# N passed, N failed.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
source scripts/deps.sh
set +e
passed=0
failed=0
section() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }
count() { passed=$((passed + $1)); failed=$((failed + $2)); }

section "format"
files=$(git ls-files '*.cpp' '*.h')
if echo "$files" | xargs clang-format-22 --dry-run -Werror; then count 1 0; else count 0 1; fi
if git ls-files 'runtime/*.cpp' 'runtime/*.h' | xargs grep -lE '#include *[<"](mlir|llvm)/'; then
  echo "the runtime includes LLVM headers"; count 0 1
else count 1 0; fi

section "build"
if ! scripts/build.sh build; then
  echo "the build failed"; echo "$passed passed, $((failed + 1)) failed"; exit 1
fi

section "generated reference"
cmake --build build --target mlir-doc >/dev/null
if [ -s build/docs/dialects/FM.md ] && [ -s build/docs/passes/FMPasses.md ]; then count 1 0; else
  echo "mlir-doc wrote no reference to build/docs"; count 0 1
fi

# run_ctest FOLDER: GoogleTest through CTest, counted by its summary.
run_ctest() {
  local log; log=$(mktemp)
  ctest --test-dir "$1" -j2 --timeout 120 --output-on-failure >"$log" 2>&1
  local total bad
  total=$(sed -n 's/.* tests failed out of \([0-9]*\)$/\1/p' "$log")
  bad=$(sed -n 's/.*, \([0-9]*\) tests failed out of .*/\1/p' "$log")
  if [ -z "$total" ] || [ "$total" = 0 ]; then tail -40 "$log"; count 0 1; return; fi
  [ "$bad" = 0 ] || grep -vE ' Passed | Start ' "$log" | tail -60
  tail -3 "$log"
  count $((total - bad)) "$bad"
}
section "unit tests"
run_ctest build

section "lit"
log=$(mktemp)
"$ISTHMUS_CACHE/venv/bin/lit" --timeout 120 build/test >"$log" 2>&1
good=$(sed -n 's/^ *Passed *: *\([0-9]*\).*/\1/p' "$log")
bad=$(grep -cE '^(FAIL|UNRESOLVED|TIMEOUT|XPASS): ' "$log")
[ "$bad" = 0 ] || cat "$log" | head -100
tail -3 "$log"
if [ -z "$good" ]; then count 0 1; else count "$good" "$bad"; fi

section "cross-build for aarch64"
if scripts/build-aarch64.sh build-aarch64; then count 1 0; else count 0 1; fi

section "end to end"
log=$(mktemp)
(cd test/e2e && ISTHMUS_BUILD=$root/build "$ISTHMUS_CACHE/venv/bin/python" -m pytest -q --durations=5 -p no:cacheprovider) 2>&1 | tee "$log" | tail -40
good=$(grep -oE '[0-9]+ passed' "$log" | tail -1 | cut -d' ' -f1)
bad=$(grep -oE '[0-9]+ (failed|error)' "$log" | awk '{n += $1} END {print n + 0}')
if [ -z "$good" ]; then count 0 1; else count "$good" "$bad"; fi

section "parsers under AddressSanitizer and UBSan"
if scripts/build.sh build-sanitized -DISTHMUS_COMPILER=OFF -DISTHMUS_SANITIZE=ON -DISTHMUS_FUZZERS=ON; then
  run_ctest build-sanitized
  seeds=$(mktemp -d)
  "$ISTHMUS_CACHE/venv/bin/python" test/fuzz/make_seeds.py "$seeds"
  for target in GGUF Safetensors Bundle Tokenizer Vocabulary Image Npy Onnx; do
    if build-sanitized/bin/${target}Fuzzer -seed=1 -runs=20000 -max_total_time=60 -rss_limit_mb=4096 -timeout=20 \
      -artifact_prefix="$seeds/" -close_fd_mask=3 "$seeds/$target" >"$log" 2>&1; then
      echo "$target: no finding in 20,000 runs"; count 1 0
    else
      tail -30 "$log"; count 0 1
    fi
  done
else
  count 0 1
fi

section "done"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
