#!/usr/bin/env python3
"""Writes a GGUF checkpoint as a Hugging Face folder in f32, for transformers and exporters.

    benchmarks/dequantise.py MODEL.gguf FOLDER         needs torch, transformers, gguf
"""
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, name = os.path.split(os.path.abspath(sys.argv[1]))
    torch.cuda.is_current_stream_capturing = lambda: False
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # Its weights are plain f32 from here on.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(sys.argv[2])
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(sys.argv[2])


if __name__ == "__main__":
    main()
