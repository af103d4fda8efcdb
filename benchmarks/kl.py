#!/usr/bin/env python3
"""Divergence of quantised bundles from the f32 model, and perplexity, beside llama.cpp's Q4_0 (and the file's own
blocks, if --weights has "file").

    PEERS=DIR benchmarks/kl.py [--model qwen] [--weights int4,int4-row,int8] [--chunks 8] --text FILE

Mean of KL(f32 || quantised) over the second half of chunks of 512 tokens, each model against its
own runtime's unquantised one (`llama-perplexity --kl-divergence`, same text and chunks); and the
perplexity of the tokens that come there.
"""
import argparse
import json
import math
import re
import subprocess
import sys
import tempfile

import numpy as np
from peers import ISTHMUS, PEERS, Isthmus, LlamaCpp, run

CHUNK = 512


def log_softmax(logits):
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def logits(bundle, ids, folder):
    file = f"{folder}/logits.f32"
    run([ISTHMUS, "logits", bundle, "--tokens", ",".join(map(str, ids)), "-o", file, "--context", CHUNK])
    return np.memmap(file, np.float32, "r").reshape(CHUNK, -1)[CHUNK // 2:CHUNK - 1].astype(np.float64)


def llama(model, kind, text, chunks, folder):
    reference, quantised = LlamaCpp(model, "BF16"), LlamaCpp(model, kind)
    if not quantised.installed:
        return None
    options = ["-f", text, "-c", CHUNK, "--chunks", chunks, "-t", 2, "--kl-divergence-base", f"{folder}/base"]
    run([reference.bin / "llama-perplexity", "-m", reference.model, *options])
    done = subprocess.run([str(c) for c in (quantised.bin / "llama-perplexity", "-m", quantised.model, "--kl-divergence",
                                            *options)], capture_output=True, text=True, check=True)
    found = [re.search(pattern, done.stdout + done.stderr) for pattern in (r"Mean\s+KLD:\s*([\d.]+)",
                                                                        r"Mean\s+PPL\(Q\)\s*:\s*([\d.]+)")]
    return tuple(float(match[1]) for match in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen")
    parser.add_argument("--weights", default="int4,int4-row,int8")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--text", required=True)
    args = parser.parse_args()
    reference = Isthmus(args.model, "f32").bundle
    bundles = {w: Isthmus(args.model, w).bundle for w in args.weights.split(",")}
    ids = json.loads(run([ISTHMUS, "tokenize", reference, args.text]))
    divergence, surprise = dict.fromkeys(bundles, 0.0), dict.fromkeys(["f32", *bundles], 0.0)
    with tempfile.TemporaryDirectory(dir=PEERS) as folder:
        for chunk in range(args.chunks):
            part = ids[chunk * CHUNK:(chunk + 1) * CHUNK]
            expected = log_softmax(logits(reference, part, folder))
            tokens = part[CHUNK // 2 + 1:]

            def surprise_in(predicted):
                return -predicted[np.arange(len(tokens)), tokens].mean() / args.chunks

            surprise["f32"] += surprise_in(expected)
            for weights, bundle in bundles.items():
                got = log_softmax(logits(bundle, part, folder))
                divergence[weights] += (np.exp(expected) * (expected - got)).sum(1).mean() / args.chunks
                surprise[weights] += surprise_in(got)
            print(f"\r{chunk + 1} of {args.chunks} chunks", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        peers = {kind: llama(args.model, kind, args.text, args.chunks, folder)
                 for kind in ("Q4_0", *(["file"] if "file" in bundles else []))}
    perplexity = {w: math.exp(v) for w, v in surprise.items()}
    print(f"mean KL from the unquantised model and perplexity over {args.chunks} chunks: f32 {perplexity['f32']:.3f}, "
          + ", ".join(f"{w} {v:.4f} {perplexity[w]:.3f}" for w, v in divergence.items())
          + "".join(f"; llama.cpp {kind} {peer[0]:.4f} {peer[1]:.3f}" for kind, peer in peers.items() if peer))


if __name__ == "__main__":
    main()
