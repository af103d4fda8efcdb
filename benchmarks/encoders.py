#!/usr/bin/env python3
"""Encoders, and GPT-2 reading a prompt, beside onnxruntime and OpenVINO.

    PEERS=DIR benchmarks/encoders.py [--only vit,clip-image,clip-text,minilm,gpt2] [--precision f32,bf16,int8,int8-row,int7-row]
                                     [--batch 1,16] [--rounds 5] [--threads 2] [--json FILE]

DIR is what benchmarks/setup_peers.sh filled (`ort ov`); exported models are kept in it.
ViT-B/16, CLIP-B/32 (each tower) and GPT-2 (124M) have generated weights, MiniLM its own
(scripts/fetch-model.sh minilm). Texts have 128 tokens, CLIP's 77; GPT-2 gives the logits
after 128. Contestants take turns, one measurement (the median of several passes) a round;
medians of the rounds are printed, with the ratio to the faster peer (the median of the
rounds' ratios, between their quartiles: neighbours who come and go slow a whole round) and the
share of the roofline that `isthmus bench --profile` finds. A peer that cannot run a model is
left out and named.

f32: everything in f32 (OpenVINO is told so: by itself it would compute in bf16 here).
bf16: weights and products of isthmus and OpenVINO, from the same f32 model.
int8, int8-row: isthmus quantises rows as they come, with a scale for each 64 values or for
each row (`--weights int8`, `int8-row`), onnxruntime by its dynamic quantizer, OpenVINO by
NNCF's post-training quantisation with 16 samples (static scales, the less exact way).
int7, int7-row: weights of seven bits beside the same int8 of peers. Without VNNI onnxruntime
adds products of bytes in 16 bits that saturate, unless its weights have seven bits as well.
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
PEER = ROOT / "benchmarks" / "encoder_peer.py"
KINDS = ["vit", "clip-image", "clip-text", "minilm", "gpt2"]

GENERATE = """
import sys, torch
torch.cuda.is_current_stream_capturing = lambda: False
import transformers as t
torch.manual_seed(1)
kind, folder = sys.argv[1:3]
if kind == "vit":
    model = t.ViTForImageClassification(t.ViTConfig(num_labels=1000))
elif kind == "gpt2":
    model = t.GPT2LMHeadModel(t.GPT2Config())
else:
    text = dict(eos_token_id=49407, bos_token_id=49406)
    model = t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=dict(patch_size=32)))
model.save_pretrained(folder)
"""


def of_peers(precision):
    """Peers have one int8, we have four."""
    return "int8" if precision.startswith("int") else precision


def python(venv):
    return PEERS / f"venv-{venv}" / "bin" / "python"


def call(*command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def prepare(kind, precisions):
    """Makes checkpoint, exports and bundles that are not there yet."""
    work = PEERS / "encoders" / kind
    work.mkdir(parents=True, exist_ok=True)
    if kind == "minilm":
        folder = pathlib.Path(subprocess.run([ROOT / "scripts" / "fetch-model.sh", "minilm"], check=True,
                                             capture_output=True, text=True).stdout.strip())
    else:
        folder = PEERS / "encoders" / kind.split("-")[0] / "hf"
        if not (folder / "config.json").exists():
            call(python("ort"), "-c", GENERATE, kind.split("-")[0], folder)
    if not (work / "f32.onnx").exists():
        call(python("ort"), PEER, "make", kind, folder, work)
    if "int8" in map(of_peers, precisions):
        if not (work / "int8.onnx").exists():
            call(python("ort"), PEER, "ort-int8", kind, work)
        if not (work / "int8.xml").exists():
            call(python("ov"), PEER, "ov-int8", kind, work)
    for precision in precisions:
        call(ISTHMUS, "compile", folder, "--weights", precision, "-o", work / f"{precision}.isth")
    return work


class Peer:
    """A peer's process: loads once, runs when it is told to."""

    def __init__(self, peer, kind, file, batch, precision, threads):
        self.process = subprocess.Popen(
            list(map(str, [python(peer), PEER, "run", peer, kind, file, batch, precision, threads])),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.runs = self.process.stdout.readline().strip() == "ready"

    def measure(self, passes):
        self.process.stdin.write(f"{passes}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def own(kind, bundle, batch, threads, passes, *more):
    command = [ISTHMUS, "bench", bundle, "--batch", batch, "--threads", threads, "-r", passes, "--json", *more]
    if kind == "gpt2":
        command += ["-p", 128, "-n", 0]
    else:
        command += ["-p", 77 if kind == "clip-text" else 128, "--encoder", "text" if kind == "clip-text" else "image"]
    out = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    profile = out.get("profile", {})
    return out["seconds"] if "seconds" in out else 128 * batch / out["prefill_tok_s"], \
        profile.get("prefill", profile).get("roofline")


def measure(kind, work, precision, batch, args):
    peers, theirs = {}, of_peers(precision)
    if precision != "bf16":
        peers["onnxruntime"] = Peer("ort", kind, work / f"{theirs}.onnx", batch, theirs, args.threads)
    peers["OpenVINO"] = Peer("ov", kind, work / ("int8.xml" if theirs == "int8" else "f32.onnx"), batch, theirs,
                             args.threads)
    for name in [name for name, peer in peers.items() if not peer.runs]:
        print(f"{kind}: {name} does not run the {precision} model and is left out", flush=True)
        del peers[name]
    bundle = work / f"{precision}.isth"
    # About as long for each: a second or so.
    passes = max(1, min(20, int(1 / max(own(kind, bundle, batch, args.threads, 1)[0], 1e-3))))
    seconds = {name: [] for name in ["isthmus", *peers]}
    for _ in range(args.rounds):
        seconds["isthmus"].append(own(kind, bundle, batch, args.threads, passes)[0])
        for name, peer in peers.items():
            seconds[name].append(peer.measure(passes))
    for peer in peers.values():
        peer.close()
    roofline = own(kind, bundle, batch, args.threads, max(2, passes), "--profile")[1]
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    fastest = min(peers, key=medians.get)
    ratios = [theirs / ours for theirs, ours in zip(seconds[fastest], seconds["isthmus"])]
    return medians, statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3, roofline


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--precision", default="f32,bf16,int8")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()
    precisions, rows = args.precision.split(","), []
    for kind in args.only.split(","):
        work = prepare(kind, precisions)
        for precision in precisions:
            for batch in map(int, args.batch.split(",")):
                medians, (low, ratio, high), roofline = measure(kind, work, precision, batch, args)
                rows.append(dict(kind=kind, precision=precision, batch=batch, seconds=medians, roofline=roofline,
                                 ratio=ratio, quartiles=[low, high]))
                times = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in medians.items())
                print(f"{kind:<11} {precision:<8} batch {batch:<3} {ratio:.2f} x the fastest peer ({low:.2f} to "
                      f"{high:.2f}), {100 * roofline:.0f} % of the roofline ({times})", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    sys.exit(main())
