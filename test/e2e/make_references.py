#!/usr/bin/env python3
"""Writes references.json and encoder_references.json: what transformers in fp32 gives
for the tiny checkpoints.

Needs torch and transformers, which the tests themselves do not:
    python test/e2e/make_references.py
"""
import json
import pathlib
import tempfile

import numpy as np
import torch

import tiny
import tiny_encoders

torch.cuda.is_current_stream_capturing = lambda: False
from transformers import AutoModel, AutoModelForCausalLM, CLIPModel, ViTForImageClassification  # noqa: E402

PROMPTS = [[5], [3, 200, 17, 42, 9], list(range(10, 60))]


def long_prompts():
    """Tried in order until one decides every token clearly."""
    for step in range(37, 99, 2):
        yield [(i * step) % 500 for i in range(300)]


def answer(model, prompt):
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + 24:  # generate() would stop at the end token
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        logits = model(torch.tensor([ids])).logits[0].numpy()
    top = np.sort(logits[len(prompt) - 1:], axis=1)
    return dict(prompt=prompt, tokens=ids[len(prompt):], last_logits=[float(v) for v in logits[-1]],
                scale=float(np.abs(logits).max()), least_gap=float((top[:, -1] - top[:, -2]).min()))


# Texts of one token, of a few, and of more than one partition of attention.
SEQUENCES = [[2], [2, 9, 44, 80, 3], [(i * 31) % 90 + 5 for i in range(300)]]


def load(kind, name):
    with tempfile.TemporaryDirectory() as folder:
        return kind.from_pretrained(tiny_encoders.write_folder(folder, name), dtype=torch.float32).eval()


@torch.no_grad()
def encoders():
    """The vectors of each tiny encoder, by its name; inputs are in the tests."""
    bert = load(AutoModel, "sentence")
    hidden = [bert(torch.tensor([ids])).last_hidden_state[0] for ids in SEQUENCES]
    pixels = torch.from_numpy(tiny_encoders.pixel_values(3, 72))
    vit, features = load(ViTForImageClassification, "vit"), load(AutoModel, "vit_features")
    clip = load(CLIPModel, "clip")
    texts = [[0, 40, 41, 42, 1], [0, 99, 1]]
    towers = [clip(input_ids=torch.tensor([ids]), pixel_values=torch.from_numpy(tiny_encoders.pixel_values(3, 32)))
              for ids in texts]
    out = {"sentence": [torch.nn.functional.normalize(h.mean(0), dim=0) for h in hidden], "bert": [h[0] for h in hidden],
           "vit": vit(pixels).logits, "vit_features": features(pixels).last_hidden_state[:, 0],
           "clip_image": towers[0].image_embeds, "clip_text": [t.text_embeds[0] for t in towers],
           "clip_scores": [t.logits_per_image[:, 0] for t in towers]}
    return {name: [[float(v) for v in row] for row in rows] for name, rows in out.items()} | {
        "sequences": SEQUENCES, "texts": texts}


def main():
    (pathlib.Path(__file__).parent / "encoder_references.json").write_text(json.dumps(encoders()) + "\n")
    out = {}
    for name in ("llama", "qwen2", "mistral", "llama3", "qwen3", "gpt2", "gemma3", "gemma3_scaled"):
        with tempfile.TemporaryDirectory() as folder:
            model = AutoModelForCausalLM.from_pretrained(tiny.write_folder(folder, name), dtype=torch.float32).eval()
        cases = [answer(model, prompt) for prompt in PROMPTS]
        cases.append(next(c for c in (answer(model, p) for p in long_prompts()) if c["least_gap"] > 5e-3))
        out[name] = cases
    path = pathlib.Path(__file__).parent / "references.json"
    path.write_text(json.dumps(out) + "\n")
    for name, cases in out.items():
        print(name, [round(c["least_gap"], 4) for c in cases])


if __name__ == "__main__":
    main()
