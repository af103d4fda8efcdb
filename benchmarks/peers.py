#!/usr/bin/env python3
"""Decode and prefill beside llama.cpp, onnxruntime-genai, OpenVINO GenAI and CTranslate2.

    PEERS=DIR benchmarks/peers.py [--model smollm2] [--rounds 5] [--only decode,prefill,batch,depth,loss] [--kv int8]
                              [--json FILE]

DIR is what benchmarks/setup_peers.sh filled. Contestants take turns, one repetition each a
round, so that all see the same neighbours; medians are printed with the ratio to the
fastest peer (the median of the rounds' ratios), and for isthmus the share of the roofline of the same run (`isthmus bench
--profile`: weights and cache over the median of read probes between the steps). Peers that
are not installed are left out and named.

How they differ: llama-bench and isthmus feed random tokens, llama-bench samples nothing;
OpenVINO reads the Q4_1 GGUF and computes prefill in its own precision; onnxruntime's prefill
contains the first token, and so does CTranslate2's, whose decoding is what more tokens take. int4 of onnxruntime has a 4-bit head too, the others' has 8 bits.

--only loss: isthmus alone, what decoding at 512 and 2,048 loses against 128 beyond what the bytes of the cache
explain. Depths take turns; the median of the rounds is printed with its quartiles.
--weights file: the GGUF's own blocks, on both sides; --model may then be any GGUF file.
--kv int8: keys and values of isthmus and llama.cpp (q8_0) in 8 bits; the other peers keep their own.
--model: smollm2; qwen (2.5-Coder-0.5B; llama.cpp and OpenVINO alone); gemma (3, 270M; llama.cpp alone); llama-3.2-1b and -3b, shapes
with random weights (llama.cpp alone: shaped_gguf.py), which no cache holds.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
ISTHMUS = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bin" / "isthmus"
PEERS = pathlib.Path(os.environ.get("PEERS", "peers"))
FETCHED = {"smollm2": "smollm2", "qwen": "qwen2.5-coder-0.5b", "gemma": "gemma3-270m"}

ORT = """
import json, sys, time
import numpy as np
import onnxruntime_genai as og
path, prompt, count, threads = sys.argv[1], *map(int, sys.argv[2:5])
config = og.Config(path)
config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads,
                                                                      "inter_op_num_threads": 1}}}}))
model = og.Model(config)
for repetition in range(2):
    params = og.GeneratorParams(model)
    length = prompt + count + 8
    params.set_search_options(max_length=length, min_length=length, do_sample=False, batch_size=1)
    generator = og.Generator(model, params)
    ids = np.random.default_rng(repetition).integers(100, 40000, prompt).astype(np.int32)
    start = time.perf_counter()
    generator.append_tokens(ids)
    generator.generate_next_token()
    first = time.perf_counter()
    for _ in range(count):
        generator.generate_next_token()
    end = time.perf_counter()
print(json.dumps({"prefill": prompt / (first - start), "decode": count / (end - first)}))
"""

OV = """
import json, sys
import numpy as np
import openvino as ov
import openvino_genai as og
path, prompt, count, threads = sys.argv[1], *map(int, sys.argv[2:5])
scheduler = og.SchedulerConfig()
scheduler.enable_prefix_caching = False
scheduler.max_num_batched_tokens = 8192
scheduler.cache_size = 1
pipe = og.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads, ATTENTION_BACKEND="PA", scheduler_config=scheduler)
config = og.GenerationConfig()
config.ignore_eos, config.do_sample, config.apply_chat_template, config.max_new_tokens = True, False, False, count + 1
for repetition in range(2):
    ids = np.random.default_rng(repetition).integers(100, 40000, (1, prompt)).astype(np.int64)
    metrics = pipe.generate(og.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config).perf_metrics
print(json.dumps({"prefill": prompt / (metrics.get_ttft().mean / 1e3), "decode": 1e3 / metrics.get_tpot().mean}))
"""


CT2 = """
import json, sys, time
import ctranslate2
import numpy as np
path, prompt, count, threads = sys.argv[1], *map(int, sys.argv[2:5])
generator = ctranslate2.Generator(path, device="cpu", inter_threads=1, intra_threads=threads)
vocabulary = json.load(open(path + "/vocabulary.json"))
seconds = {}
for repetition in range(2):
    ids = np.random.default_rng(repetition).integers(100, 40000, prompt)
    for length in (1, count + 1):
        start = time.perf_counter()
        generator.generate_batch([[vocabulary[i] for i in ids]], max_length=length, min_length=length, sampling_topk=1,
                                 include_prompt_in_result=False)
        seconds[length] = time.perf_counter() - start
print(json.dumps({"prefill": prompt / seconds[1], "decode": count / (seconds[count + 1] - seconds[1])}))
"""


def run(command, **kwargs):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **kwargs)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def source(model):
    """What isthmus compiles: a file, or the name of a shape."""
    if model.endswith(".gguf"):
        return model
    if model not in FETCHED:
        return f"generated:{model}"
    return run([ROOT / "scripts" / "fetch-model.sh", FETCHED[model]]).strip()


class Isthmus:
    name = "isthmus"

    def __init__(self, model, weights, extra=()):
        self.bundle = PEERS / "model" / f"{pathlib.Path(model).stem}-{weights}{'-'.join(extra)}.isth"
        run([ISTHMUS, "compile", source(model), "--weights", weights, *extra, "-o", self.bundle])

    def __call__(self, prompt, depth, count, threads, batch):
        command = [ISTHMUS, "bench", self.bundle, "-p", prompt, "-n", count, "--depth", depth, "-r", 1, "--threads",
                   threads, "--batch", batch, "--json", "--profile"]
        out = json.loads(run(command))
        result = {k: out[f"{k}_tok_s"] for k in ("prefill", "decode") if f"{k}_tok_s" in out}
        for kind, profile in out["profile"].items():
            result[f"{kind}_roofline"] = profile["roofline"]
            result[f"{kind}_bytes"] = sum(k["bytes"] for k in profile["kernels"]) / profile["steps"]
            products = [k for k in profile["kernels"] if "linear" in k["kernel"]]
            seconds = sum(k["seconds"] for k in products)
            result[f"{kind}_products"] = sum(k["roofline"] * k["seconds"] for k in products) / seconds
        return result


class LlamaCpp:
    def __init__(self, model, kind, build="build-llama", kv=None):
        self.cache = ["-ctk", "q8_0", "-ctv", "q8_0", "-fa", "1"] if kv == "int8" else []
        self.name, self.bin = f"llama.cpp {kind}", PEERS / build / "bin"
        self.model = pathlib.Path(source(model)) if kind == "file" else PEERS / "model" / f"{model}.{kind}.gguf"
        self.installed = (self.bin / "llama-bench").exists()
        if self.installed and not self.model.exists():
            if model in FETCHED:
                run([PEERS / "build-llama" / "bin" / "llama-quantize", "--allow-requantize", source(model), self.model,
                     kind, 2])
            else:
                run([sys.executable, ROOT / "benchmarks" / "shaped_gguf.py", model, kind, self.model])

    def __call__(self, prompt, depth, count, threads, batch):
        if batch > 1:
            out = run([self.bin / "llama-batched-bench", "-m", self.model, "-t", threads, "-npp", depth, "-ntg", count,
                       "-npl", batch, "-c", batch * (depth + count) + 64, *self.cache])
            row = [line for line in out.splitlines() if line.startswith("|")][-1].split("|")
            return {"decode": float(row[8])}
        result = {}
        for name, options in (("prefill", ["-p", prompt, "-n", 0]), ("decode", ["-p", 0, "-n", count])):
            if options[1] or name == "decode" and count:
                row = json.loads(run([self.bin / "llama-bench", "-m", self.model, "-t", threads, "-r", 1, "-o", "jsonl",
                                      *options, "-d", depth, *self.cache]).splitlines()[0])
                result[name] = row["avg_ts"]
        return result


class Script:
    """A peer that is a Python package in an environment of its own."""

    def __init__(self, name, venv, source, model):
        self.name, self.python, self.source, self.model = name, PEERS / venv / "bin" / "python", source, model
        self.installed = self.python.exists() and pathlib.Path(model).exists()

    def __call__(self, prompt, depth, count, threads, batch):
        if batch > 1:
            return {}
        if depth and prompt:
            return {}  # their prompts start from nothing
        return json.loads(run([self.python, "-c", self.source, self.model, depth or prompt, count or 1,
                               threads]).splitlines()[-1])


def ort(kind):
    return Script(f"onnxruntime-genai {kind}", "venv-ort", ORT, str(PEERS / "model" / "ort" / kind))


LLAMA = {"file": ["file"], "int4": ["Q4_0"], "int4-row": ["Q4_0"], "int8": ["Q8_0"], "int8-row": ["Q8_0"],
         "int7": ["Q8_0"], "int7-row": ["Q8_0"], "bf16": ["BF16", "F16"], "f16": ["F16", "BF16"], "f32": ["F32"]}


def peers_of(model, kind, weights, kv):
    peers = [LlamaCpp(model, k, kv=kv) for k in LLAMA[weights]]
    if model == "smollm2" and weights not in ("bf16", "f16", "file"):
        peers.append(ort("fp32" if weights == "f32" else weights.removesuffix("-row").replace("int7", "int8")))
    if model == "smollm2" and weights in ("f32", "int8", "int8-row", "int7", "int7-row"):
        folder = PEERS / "model" / "ct2" / ("float32" if weights == "f32" else "int8")
        peers.append(Script("CTranslate2", "venv-ort", CT2, str(folder)))
    # OpenVINO leads in prefill; in decode it is the slowest of them.
    reads = ("smollm2",) if weights == "file" else ("smollm2", "qwen")
    if model in reads and kind == "prefill" and weights != "f32":
        # It reads no BF16; what it makes of F16 it decides itself.
        file = source(model) if model == "smollm2" else LlamaCpp(model, LLAMA[weights][-1]).model
        peers.append(Script("openvino-genai", "venv-ov", OV, str(file)))
    return peers


def cases(model, only):
    for weights in LLAMA:
        # These have as many bytes as int8, and are for prompts.
        if "decode" in only and weights not in ("int8-row", "int7", "int7-row"):
            for depth in (128, 512, 2048) if model == "smollm2" else (128, 2048):
                yield "decode", weights, dict(prompt=0, depth=depth, count=128, threads=2, batch=1)
            yield "decode", weights, dict(prompt=0, depth=128, count=128, threads=1, batch=1)
        if "prefill" in only:
            yield "prefill", weights, dict(prompt=512, depth=0, count=0, threads=2, batch=1)
    for weights in ("int4", "int4-row"):
        if "batch" in only:
            for batch in (8, 32):
                yield "decode", weights, dict(prompt=0, depth=128, count=64, threads=2, batch=batch)
        if "depth" in only:
            yield "decode", weights, dict(prompt=0, depth=7680, count=64, threads=2, batch=1)
            yield "prefill", weights, dict(prompt=512, depth=7680, count=0, threads=2, batch=1)


def losses(model, weights, rounds):
    """Prints by how much decoding at a depth is slower than at 128 beyond the ratio of what both read."""
    isthmus = Isthmus(model, weights)
    depths = (128, 512, 2048)
    samples = {depth: [] for depth in depths}
    for turn in range(rounds):
        for depth in depths if turn % 2 == 0 else reversed(depths):
            samples[depth].append(isthmus(prompt=0, depth=depth, count=64, threads=2, batch=1))
    for depth in depths[1:]:
        lost = [1 - b["decode"] * b["decode_bytes"] / (a["decode"] * a["decode_bytes"])
                for a, b in zip(samples[depths[0]], samples[depth])]
        low, middle, high = statistics.quantiles(lost, n=4)
        print(f"loss    {weights:<9}at {depth:<5} {samples[depth][0]['decode_bytes'] / 1e6:.1f} MB a token, at 128 "
              f"{samples[128][0]['decode_bytes'] / 1e6:.1f}: {middle:.1%} slower than bytes explain (quartiles {low:.1%} "
              f"to {high:.1%})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help=f"{', '.join(FETCHED)}, llama-3.2-1b, llama-3.2-3b, or a GGUF "
                        "file, with --weights file alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="decode,prefill,batch,depth")
    parser.add_argument("--weights", default=",".join(LLAMA), help="default: %(default)s")
    parser.add_argument("--avx2", action="store_true", help="AVX2 alone on both sides (setup_peers.sh avx2)")
    parser.add_argument("--kv", choices=["int8"], help="the cache of isthmus and llama.cpp (default: their own)")
    parser.add_argument("--json", help="write all samples to this file")
    args = parser.parse_args()
    records = []
    if "loss" in args.only.split(","):
        for weights in args.weights.split(","):
            losses(args.model, weights, args.rounds)
    for kind, weights, options in cases(args.model, args.only.split(",")):
        if weights not in args.weights.split(",") or (weights == "file" and source(args.model).startswith("generated")):
            continue
        if args.avx2:
            contestants = [Isthmus(args.model, weights, ("--target", "x86-64-avx2")),
                           LlamaCpp(args.model, LLAMA[weights][0], "build-llama-avx2")]
        else:
            extra = ("--kv", args.kv) if args.kv else ()
            contestants = [Isthmus(args.model, weights, extra)] + peers_of(args.model, kind, weights, args.kv)
        missing = [c.name for c in contestants[1:] if not c.installed]
        contestants = [c for c in contestants if c.name not in missing]
        samples = {c.name: [] for c in contestants}
        for _ in range(args.rounds):
            for contestant in contestants:
                samples[contestant.name].append(contestant(**options))
        median = {name: statistics.median(s[kind] for s in rows) for name, rows in samples.items()
                  if all(kind in s for s in rows)}
        own = median.pop("isthmus")
        best = max(median, key=median.get)
        ratio = statistics.median(a[kind] / b[kind] for a, b in zip(samples["isthmus"], samples[best]))
        mean = {k: statistics.median(s[k] for s in samples["isthmus"]) for k in (f"{kind}_roofline", f"{kind}_products")}
        after = f" after {options['depth']}" if options["depth"] else ""
        shape = f"{options['prompt']} tokens{after}" if kind == "prefill" else \
            f"at {options['depth']}, {options['batch']} sequence{'s' if options['batch'] > 1 else ''}"
        limit = f"{mean[f'{kind}_roofline']:.0%} of the roofline" if kind == "decode" else \
            f"products at {mean[f'{kind}_products']:.0%} of the peak"
        print(f"{kind:<8}{weights:<9}{shape:<22}{options['threads']} threads  isthmus {own:7.1f} tok/s, {limit}; "
              f"{ratio:.2f} x {best} ({median[best]:.1f})"
              + "".join(f", {name} {value:.1f}" for name, value in median.items() if name != best)
              + (f"  [not installed: {', '.join(missing)}]" if missing else ""), flush=True)
        records.append(dict(kind=kind, weights=weights, **options, samples=samples))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
