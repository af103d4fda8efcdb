#!/usr/bin/env python3
"""Writes a GGUF of random weights in the shape of a Llama, for timing peers only.

    benchmarks/shaped_gguf.py llama-3.2-1b|llama-3.2-3b Q4_0|Q8_0 FILE

The same shapes as `isthmus compile generated:NAME`, without a vocabulary. Q4_0 keeps the
tied table in Q6_K, as llama-quantize does.
"""
import argparse

import gguf
import numpy as np

SHAPES = {"llama-3.2-1b": (16, 2048, 8192, 32, 64), "llama-3.2-3b": (28, 3072, 8192, 24, 128)}
VOCAB, KV_HEADS = 128256, 8


def blocks(rng, kind, rows, columns):
    """Random blocks of `kind` whose scales are small numbers."""
    size, bytes_ = gguf.GGML_QUANT_SIZES[kind]
    count = rows * columns // size
    data = rng.integers(0, 256, (count, bytes_), np.uint8)
    scale = np.frombuffer(np.float16(0.002).tobytes(), np.uint8)
    at = bytes_ - 2 if kind == gguf.GGMLQuantizationType.Q6_K else 0
    data[:, at:at + 2] = scale
    return data.reshape(rows, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=["Q4_0", "Q8_0"])
    parser.add_argument("file")
    args = parser.parse_args()
    layers, hidden, forward, heads, dim = SHAPES[args.shape]
    kind = gguf.GGMLQuantizationType[args.type]
    table = gguf.GGMLQuantizationType.Q6_K if args.type == "Q4_0" else kind
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(args.file, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("none")

    def matrix(name, rows, columns, kind=kind):
        writer.add_tensor(name, blocks(rng, kind, rows, columns), raw_dtype=kind)

    def ones(name):
        writer.add_tensor(name, np.ones(hidden, np.float32))

    matrix("token_embd.weight", VOCAB, hidden, table)
    ones("output_norm.weight")
    for i in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            ones(f"blk.{i}.{name}.weight")
        for name, rows, columns in (("attn_q", heads * dim, hidden), ("attn_k", KV_HEADS * dim, hidden),
                                    ("attn_v", KV_HEADS * dim, hidden), ("attn_output", hidden, heads * dim),
                                    ("ffn_gate", forward, hidden), ("ffn_up", forward, hidden),
                                    ("ffn_down", hidden, forward)):
            matrix(f"blk.{i}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
