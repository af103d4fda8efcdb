#!/usr/bin/env python3
"""Time from start to the first token, and memory while one conversation is served.

    benchmarks/startup.py --bundle B [--rounds 7]

Start: `isthmus run` with a 32-token prompt and one token, files warm, digests checked as
always; what is left after its prefill is loading (bar: 60 ms). Memory: `isthmus serve` after
one conversation of 2,000 tokens, mapped pages counted, less weights and cache (bar: 60 MB).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
ISTHMUS = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bin" / "isthmus"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    ids = [(37 * i + 11) % 1000 for i in range(2000)]

    command = [ISTHMUS, "run", args.bundle, "--tokens", ",".join(map(str, ids[:32])), "--max-tokens", "1",
               "--temperature", "0", "--ignore-eos", "--json", "--context", "2048"]
    loads = []
    for _ in range(args.rounds + 1):
        start = time.perf_counter()
        out = subprocess.run(command, check=True, capture_output=True).stdout
        loads.append(time.perf_counter() - start - json.loads(out)["prefill_seconds"])
    print(f"start to first token, without prefill: {statistics.median(loads[1:]) * 1e3:.0f} ms (bar 60)")

    server = subprocess.Popen([ISTHMUS, "serve", args.bundle, "--port", "0", "--context", "2048"], stdout=subprocess.PIPE,
                              text=True)
    try:
        url = server.stdout.readline().split()[-1].strip()
        body = json.dumps(dict(prompt=ids[:1900], max_tokens=100, temperature=0)).encode()
        urllib.request.urlopen(urllib.request.Request(url + "/v1/completions", body,
                                                      {"Content-Type": "application/json"})).read()
        resident = int(next(line for line in open(f"/proc/{server.pid}/status") if line.startswith("VmRSS")).split()[1])
    finally:
        server.terminate()
    plan = json.loads(subprocess.run([ISTHMUS, "inspect", args.bundle, "--json"], check=True, capture_output=True)
                      .stdout)["plans"][0]
    weights = sum(stage["weight_bytes"] for stage in plan["stages"])
    cache = sum(stage["kv_bytes"] for stage in plan["stages"]) * 2000 / plan["context_tokens"]
    rest = resident * 1024 - weights - cache
    print(f"serving 2,000 tokens: {resident / 1024:.0f} MiB resident; weights {weights / 1e6:.1f} MB, cache "
          f"{cache / 1e6:.1f} MB, rest {rest / 1e6:.1f} MB (bar 60)")


if __name__ == "__main__":
    main()
