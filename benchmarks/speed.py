#!/usr/bin/env python3
"""Decode and prefill beside llama.cpp, interleaved in one run.

    benchmarks/speed.py --bundle SMOL.isth --llama-bench PATH --gguf SMOL.Q4_0.gguf

Prints both sides, their ratio (isthmus over llama.cpp, medians of --rounds) and the
commands. llama-bench should be built for this machine (GGML_NATIVE=ON).
"""
import argparse
import json
import os
import statistics
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ISTHMUS = os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "bin", "isthmus")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    own = [ISTHMUS, "bench", args.bundle, "-p", "512", "-n", "128", "-r", "1", "--threads", str(args.threads), "--json"]
    peer = [args.llama_bench, "-m", args.gguf, "-t", str(args.threads), "-p", "512", "-n", "128", "-r", "1", "-o", "json"]
    results = {"isthmus": {"prefill": [], "decode": []}, "llama.cpp": {"prefill": [], "decode": []}}
    for _ in range(args.rounds):
        out = json.loads(subprocess.run(own, check=True, capture_output=True, text=True).stdout)
        results["isthmus"]["prefill"].append(out["prefill_tok_s"])
        results["isthmus"]["decode"].append(out["decode_tok_s"])
        for row in json.loads(subprocess.run(peer, check=True, capture_output=True, text=True).stdout):
            results["llama.cpp"]["prefill" if row["n_prompt"] else "decode"].append(row["avg_ts"])
    print("$", " ".join(own))
    print("$", " ".join(peer))
    for kind in ("prefill", "decode"):
        a = statistics.median(results["isthmus"][kind])
        b = statistics.median(results["llama.cpp"][kind])
        print(f"{kind:<8} isthmus {a:7.1f}  llama.cpp {b:7.1f}  ratio {a / b:.2f}   "
              f"(isthmus {[round(v) for v in results['isthmus'][kind]]}, llama.cpp "
              f"{[round(v) for v in results['llama.cpp'][kind]]})")


if __name__ == "__main__":
    main()
