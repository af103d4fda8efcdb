#!/usr/bin/env python3
"""Encoders against transformers in fp32: the same inputs, the same vectors.

    benchmarks/encoders_equal.py --vit FOLDER --clip FOLDER --minilm FOLDER --images FILE.npz [--weights f32]

Any of the folders may be left out. Needs torch, transformers and Pillow. Compiles each
folder, and compares:

vit     logits of all images of the file (within 1e-4 of the largest magnitude), the
        classes, and a PNG and a scaled JPEG through the checkpoint's own preprocessing;
clip    embeddings of all images and of ten captions, logits of images against texts, the
        zero-shot classes and their accuracy;
minilm  embeddings of 200 sentences through the tokenizer, by cosine similarity.

With weights other than f32 nothing need be equal: accuracies and similarities are
printed. Prints a line a comparison and exits non-zero if one fails.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
ISTHMUS = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bin" / "isthmus"
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


class Checks:
    def __init__(self, strict):
        self.strict, self.passed, self.failed = strict, 0, 0

    def __call__(self, what, figure, good):
        verdict = "" if not self.strict else "equal" if good else "FAIL"
        self.passed += self.strict and good
        self.failed += self.strict and not good
        print(f"{what:<58} {figure:<28} {verdict}", flush=True)


def isthmus(*args):
    return subprocess.run([ISTHMUS, *map(str, args)], check=True, capture_output=True, text=True).stdout


def compiled(folder, weights, work):
    bundle = work / f"{pathlib.Path(folder).name}.isth"
    isthmus("compile", folder, "--weights", weights, "-o", bundle)
    return bundle


def vectors(bundle, work, *args):
    out = work / "out.npy"
    isthmus("run", bundle, *args, "-o", out)
    return np.load(out)


def relative(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def pixels(processor, images):
    from PIL import Image
    return np.concatenate([processor(images=Image.fromarray(x), return_tensors="np")["pixel_values"]
                           for x in images]).astype(np.float32)


def pictures(work, images):
    """A PNG of the model's size and a JPEG that must be scaled, with noise and edges."""
    from PIL import Image
    Image.fromarray(images[0]).save(work / "a.png")
    big = Image.fromarray(np.concatenate([np.concatenate(list(images[i:i + 4]), 1) for i in (0, 4, 8)]))
    big.save(work / "b.jpg", quality=90)
    return [work / "a.png", work / "b.jpg"]


def image_cases(check, name, bundle, work, processor, images, run):
    """Files through our preprocessing against pixels through theirs."""
    from PIL import Image
    for path in pictures(work, images):
        theirs = run(processor(images=Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"])
        error = relative(vectors(bundle, work, "--image", path), theirs)
        check(f"{name}: {path.suffix[1:].upper()} through the preprocessing", f"within {error:.1e}", error <= 1e-4)


def vit(check, folder, images, labels, weights, work):
    import torch
    from transformers import AutoImageProcessor, ViTForImageClassification
    model = ViTForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    bundle = compiled(folder, weights, work)

    def run(values):
        with torch.no_grad():
            return model(values).logits.numpy()

    values = pixels(processor, images)
    theirs = run(torch.from_numpy(values))
    np.save(work / "in.npy", values)
    ours = vectors(bundle, work, "--input", f"pixel_values={work / 'in.npy'}")
    error, same = relative(ours, theirs), int((ours.argmax(1) == theirs.argmax(1)).sum())
    check(f"vit: logits of {len(images)} images", f"within {error:.1e}", error <= 1e-4)
    check("vit: the same class", f"{same} of {len(images)}", same == len(images))
    mine, other = (ours.argmax(1) == labels).mean(), (theirs.argmax(1) == labels).mean()
    check("vit: accuracy, ours and theirs", f"{100 * mine:.1f} %, {100 * other:.1f} %", mine == other)
    image_cases(check, "vit", bundle, work, processor, images, run)


def clip(check, folder, images, labels, weights, work):
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bundle = compiled(folder, weights, work)
    captions = [f"a photo of a {name}" for name in CLASSES]
    text = tokenizer(captions, padding=True, return_tensors="pt")

    def run(values):
        with torch.no_grad():
            return model(**text, pixel_values=values)

    values = pixels(processor, images)
    theirs = run(torch.from_numpy(values))
    np.save(work / "in.npy", values)
    ours = vectors(bundle, work, "--input", f"pixel_values={work / 'in.npy'}")
    texts = vectors(bundle, work, *[a for c in captions for a in ("--text", c)])
    for what, mine, other in ((f"{len(images)} images", ours, theirs.image_embeds),
                              (f"{len(captions)} captions", texts, theirs.text_embeds)):
        error = relative(mine, other.numpy())
        check(f"clip: embeddings of {what}", f"within {error:.1e}", error <= 1e-4)
    scores = theirs.logits_per_image.numpy()
    np.save(work / "one.npy", values[:1])
    found = json.loads(isthmus("run", bundle, "--json", "--input", f"pixel_values={work / 'one.npy'}",
                               *[a for c in captions for a in ("--text", c)]))
    error = relative(np.array(found["matches"][0]["logits"]), scores[0])
    check("clip: image-text scores", f"within {error:.1e}", error <= 1e-4)
    guess = (ours @ texts.T).argmax(1)
    same = int((guess == scores.argmax(1)).sum())
    check("clip: the same zero-shot class", f"{same} of {len(images)}", same == len(images))
    mine, other = (guess == labels).mean(), (scores.argmax(1) == labels).mean()
    check("clip: zero-shot accuracy, ours and theirs", f"{100 * mine:.1f} %, {100 * other:.1f} %", mine == other)
    image_cases(check, "clip", bundle, work, processor, images, lambda v: run(v).image_embeds.numpy())


def minilm(check, folder, weights, work):
    import torch
    from transformers import AutoModel, AutoTokenizer
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bundle = compiled(folder, weights, work)
    prose = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    sentences = [s.strip() for s in prose.replace("\n", " ").split(". ") if 0 < len(s) < 500][:185]
    sentences += ["", "a", "Ünïcödé ÀÉÎ straße İstanbul", "日本の首都は東京です", "x" * 300, "don't stop-believing!",
                  "def f(x):\n\treturn x ** 2", "🙂🎉 emoji", "[CLS] [MASK] [SEP]", " many   spaces\u00a0here ",
                  "Ελληνικά ΣΊΣΥΦΟΣ", "हिन्दी भाषा", "العربية", "½ ² ﬁ", "e\u0301 and é"]
    worst, where = 1.0, ""
    for sentence in sentences:
        ids = tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt", padding=False)
        with torch.no_grad():
            hidden = model(**ids).last_hidden_state[0]
        theirs = torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()
        ours = vectors(bundle, work, "--text", sentence)[0]
        if (cosine := float(ours @ theirs)) < worst:
            worst, where = cosine, sentence
    if worst < 1 - 1e-4:
        print(f"minilm: farthest at {where[:100]!r}")
    check(f"minilm: cosine to theirs, {len(sentences)} sentences", f"1 - {1 - worst:.1e}", worst >= 1 - 1e-4)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vit", "clip", "minilm", "images"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--weights", default="f32")
    args = parser.parse_args()
    import torch
    torch.cuda.is_current_stream_capturing = lambda: False
    check = Checks(strict=args.weights == "f32")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        if args.vit or args.clip:
            data = np.load(args.images)
            for run, model in ((vit, args.vit), (clip, args.clip)):
                if model:
                    run(check, model, data["x"], data["y"], args.weights, work)
        if args.minilm:
            minilm(check, args.minilm, args.weights, work)
    if check.strict:
        print(f"{check.passed} passed, {check.failed} failed")
    return check.failed != 0


if __name__ == "__main__":
    sys.exit(main())
