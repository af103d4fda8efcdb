#!/usr/bin/env python3
"""Embeddings a second from 'isthmus serve', by how many clients ask at once.

    benchmarks/embeddings.py --bundle minilm.isth [--tokens 12] [--clients 1,4,16] [--seconds 5] [--rounds 3]

Each client is a process that sends one short text after another, as token ids. Requests that come while a step runs share
the next one; prints requests a second, sequences a step, and the gain over one client, in
turns, medians.
"""
import argparse
import http.client
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
ISTHMUS = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bin" / "isthmus"


def steps(host):
    text = urllib.request.urlopen(f"http://{host}/metrics").read().decode()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("isthmus_steps_total ")))


def client(host, tokens, end, counts):
    connection, n = http.client.HTTPConnection(host), 0
    while time.monotonic() < end:
        ids = [1000 + (n * 31 + i * 17) % 1000 for i in range(tokens)]
        connection.request("POST", "/v1/embeddings", json.dumps(dict(input=[ids], encoding_format="base64")))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        n += 1
    counts.put(n)


def measure(host, clients, tokens, seconds):
    counts, before, start = multiprocessing.Queue(), steps(host), time.monotonic()
    processes = [multiprocessing.Process(target=client, args=(host, tokens, start + seconds, counts))
                 for _ in range(clients)]
    for process in processes:
        process.start()
    total = sum(counts.get() for _ in processes)
    for process in processes:
        process.join()
    return total / (time.monotonic() - start), total / max(1, steps(host) - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    server = subprocess.Popen([ISTHMUS, "serve", args.bundle, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        host = server.stdout.readline().split("http://")[1].strip()
        clients = list(map(int, args.clients.split(",")))
        found = {n: [] for n in clients}
        for _ in range(args.rounds):
            for n in clients:
                found[n].append(measure(host, n, args.tokens, args.seconds))
        alone = statistics.median(rate for rate, _ in found[clients[0]])
        for n in clients:
            rate = statistics.median(rate for rate, _ in found[n])
            share = statistics.median(share for _, share in found[n])
            print(f"{n:>3} clients: {rate:7.0f} requests/s, {share:.1f} sequences a step, {rate / alone:.2f} x "
                  f"{clients[0]} client")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
