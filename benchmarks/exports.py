#!/usr/bin/env python3
"""ONNX exports of a decoder beside the checkpoint they were made of.

    PEERS=DIR benchmarks/exports.py [--rounds 5] [--weights f32,int4] [--threads 2]

DIR is what benchmarks/setup_peers.sh made with `ort`: SmolLM2's checkpoint in f32, and what onnxruntime-genai's builder
makes of it. PyTorch's exports are made at the first run. Each is compiled with the same --weights as the checkpoint;
greedy tokens are compared on 8 prompts, prefill (512) and decode (at 128) timed in turns. Printed: how many tokens are
equal, the medians of the rounds' ratios to the checkpoint's and, for the builder's files, to onnxruntime-genai
running the same file.
The builder's int4 and int8 files hold other weights, so their tokens are not to be the checkpoint's.
"""
import argparse
import json
import random
import statistics

import peers
from peers import ISTHMUS, PEERS, ROOT, run

BUILDER = {"genai fp32": "fp32", "genai int8": "int8", "genai int4": "int4"}
PYTORCH = {"pytorch opset 17": 17, "pytorch opset 24": 24}


def files():
    checkpoint = PEERS / "model" / "hf-f32"
    found = {name: PEERS / "model" / "ort" / folder / "model.onnx" for name, folder in BUILDER.items()}
    for name, opset in PYTORCH.items():
        folder = PEERS / "model" / f"pytorch-{opset}"
        if not (folder / "model.onnx").exists():
            run([PEERS / "venv-ort" / "bin" / "python", ROOT / "benchmarks" / "export_decoder.py", checkpoint, folder,
                 "--opset", opset])
        found[name] = folder / "model.onnx"
    return checkpoint, found


class Bundle:
    def __init__(self, name, model, weights):
        self.bundle = PEERS / "model" / f"export-{name.replace(' ', '-')}-{weights}.isth"
        report = run([ISTHMUS, "compile", model, "--weights", weights, "-o", self.bundle, "--json"])
        self.seconds = json.loads(report)["seconds"]

    def bench(self, threads):
        out = json.loads(run([ISTHMUS, "bench", self.bundle, "-p", 512, "-n", 64, "--depth", 128, "-r", 1, "--threads",
                              threads, "--json"]))
        return {kind: out[f"{kind}_tok_s"] for kind in ("prefill", "decode")}

    def tokens(self):
        rng, out = random.Random(7), []
        for _ in range(8):
            ids = ",".join(str(rng.randrange(100, 40000)) for _ in range(24))
            out += json.loads(run([ISTHMUS, "run", self.bundle, "--tokens", ids, "--max-tokens", 24, "--ignore-eos",
                                   "--json"]))["tokens"]
        return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", default="f32,int4")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    checkpoint, exports = files()
    for weights in args.weights.split(","):
        native = Bundle("checkpoint", checkpoint, weights)
        wanted = native.tokens()
        bundles = {"checkpoint": native} | {name: Bundle(name, file, weights) for name, file in exports.items()}
        contestants = {name: lambda b=bundle: b.bench(args.threads) for name, bundle in bundles.items()}
        for name, folder in BUILDER.items():
            script = peers.ort(folder)
            contestants[f"onnxruntime-{name}"] = lambda s=script: {
                "prefill": s(512, 0, 1, args.threads, 1)["prefill"], "decode": s(0, 128, 64, args.threads, 1)["decode"]}
        samples = {name: [] for name in contestants}
        for turn in range(args.rounds):
            # Whoever comes after another process does not do so each time.
            names = list(contestants)
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                samples[name].append(contestants[name]())

        def ratio(name, other, kind):
            """The median of the rounds': neighbours who come and go slow a whole round."""
            return statistics.median(a[kind] / b[kind] for a, b in zip(samples[name], samples[other]))

        for name in exports:
            equal = sum(a == b for a, b in zip(bundles[name].tokens(), wanted))
            line = (f"{weights:<5} {name:<17} {equal}/{len(wanted)} tokens equal; of the checkpoint's speed: prefill "
                    f"{ratio(name, 'checkpoint', 'prefill'):.2f}, decode {ratio(name, 'checkpoint', 'decode'):.2f}")
            if name in BUILDER:
                other = f"onnxruntime-{name}"
                line += (f"; of onnxruntime-genai's on this file: prefill {ratio(name, other, 'prefill'):.2f}, "
                         f"decode {ratio(name, other, 'decode'):.2f}")
            print(f"{line}; compiled in {bundles[name].seconds:.1f} s, the checkpoint in {native.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
