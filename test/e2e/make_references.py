#!/usr/bin/env python3
"""Writes references.json: what transformers in fp32 gives for the tiny checkpoints.

Needs torch and transformers, which the tests themselves do not:
    python test/e2e/make_references.py
"""
import json
import pathlib
import tempfile

import numpy as np
import torch

import tiny

torch.cuda.is_current_stream_capturing = lambda: False
from transformers import AutoModelForCausalLM  # noqa: E402

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


def main():
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
