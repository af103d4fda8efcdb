#!/usr/bin/env python3
"""Exports a decoder to ONNX with PyTorch, its cache as past_key_values, as optimum does.

    venv/bin/python benchmarks/export_decoder.py CHECKPOINT FOLDER --opset 17|18|24

Opset 17 is PyTorch's old exporter, by tracing; from 18 on its new one, which from 23 on writes the standard's Attention.
Needs torch, transformers, onnxscript. Tokenizer and configuration are copied beside the file.
"""
import argparse
import pathlib
import shutil

import torch

torch.cuda.is_current_stream_capturing = lambda: False  # PyTorch without CUDA libraries
from transformers import AutoModelForCausalLM, DynamicCache  # noqa: E402


class Step(torch.nn.Module):
    """Caches in and out as tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, past):
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                         past_key_values=DynamicCache(past), use_cache=True)
        return (out.logits, *(t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--opset", type=int, default=24)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=torch.float32, attn_implementation="sdpa")
    c = model.eval().config
    layers, heads = c.num_hidden_layers, getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    size = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    tokens, before = 3, 5
    past = [tuple(torch.randn(1, heads, before, size) for _ in "kv") for _ in range(layers)]
    example = (torch.arange(tokens)[None], torch.ones(1, before + tokens, dtype=torch.int64),
               torch.arange(before, before + tokens)[None], past)
    caches = {kind: [f"{kind}.{i}.{part}" for i in range(layers) for part in ("key", "value")]
              for kind in ("past_key_values", "present")}
    names = dict(input_names=["input_ids", "attention_mask", "position_ids", *caches["past_key_values"]],
                 output_names=["logits", *caches["present"]], opset_version=args.opset)
    file = str(args.folder / "model.onnx")
    if args.opset < 18:
        sizes = {"input_ids": {1: "sequence"}, "attention_mask": {1: "total"}, "position_ids": {1: "sequence"}}
        sizes |= {name: {2: "past"} for name in caches["past_key_values"]}
        torch.onnx.export(Step(model), example, file, dynamo=False, dynamic_axes=sizes, **names)
    else:
        some = torch.export.Dim.DYNAMIC
        sizes = {"input_ids": {1: some}, "attention_mask": {1: some}, "position_ids": {1: some},
                 "past": [({2: some}, {2: some})] * layers}
        torch.onnx.export(Step(model), example, dynamo=True, dynamic_shapes=sizes,
                          **names).save(file, external_data=True)
    for other in args.checkpoint.iterdir():
        if other.suffix in (".json", ".jinja") and "safetensors" not in other.name:
            shutil.copy(other, args.folder)


if __name__ == "__main__":
    main()
