"""Small checkpoints generated from a seed, as Hugging Face folders and GGUF files."""
import json
import pathlib
import struct

import numpy as np

CONFIGS = {
    "llama": dict(model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=32, vocab_size=512,
                  max_position_embeddings=1024, rms_norm_eps=1e-5, rope_theta=10000.0,
                  tie_word_embeddings=True, hidden_act="silu", bos_token_id=0, eos_token_id=1),
    "qwen2": dict(model_type="qwen2", hidden_size=96, intermediate_size=128, num_hidden_layers=2,
                  num_attention_heads=3, num_key_value_heads=1, vocab_size=512,
                  max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=1000000.0,
                  tie_word_embeddings=False, hidden_act="silu", bos_token_id=0, eos_token_id=1),
    # A window shorter than the longest prompt.
    "mistral": dict(model_type="mistral", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=32, vocab_size=512, sliding_window=40,
                    max_position_embeddings=1024, rms_norm_eps=1e-5, rope_theta=10000.0,
                    tie_word_embeddings=True, hidden_act="silu", bos_token_id=0, eos_token_id=1),
    # Scaled frequencies: some long, some short, some in between.
    "llama3": dict(model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                   num_attention_heads=2, num_key_value_heads=1, head_dim=64, vocab_size=512,
                   max_position_embeddings=1024, rms_norm_eps=1e-5, rope_theta=10000.0,
                   rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=128),
                   tie_word_embeddings=True, hidden_act="silu", bos_token_id=0, eos_token_id=1),
    "qwen3": dict(model_type="qwen3", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=32, vocab_size=512,
                  max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=1000000.0,
                  tie_word_embeddings=True, hidden_act="silu", bos_token_id=0, eos_token_id=1),
    "gpt2": dict(model_type="gpt2", n_embd=64, n_layer=2, n_head=2, n_positions=512, vocab_size=512,
                 layer_norm_epsilon=1e-5, activation_function="gelu_new", bos_token_id=0, eos_token_id=1),
    # Both kinds of layer.
    "gemma3": dict(model_type="gemma3_text", hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                   num_attention_heads=2, num_key_value_heads=1, head_dim=32, vocab_size=512, sliding_window=24,
                   layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                   max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=1000000.0,
                   rope_local_base_freq=10000.0, query_pre_attn_scalar=32, hidden_activation="gelu_pytorch_tanh",
                   tie_word_embeddings=True, bos_token_id=0, eos_token_id=1),
    # As transformers 5 writes it, frequencies of full layers scaled.
    "gemma3_scaled": dict(model_type="gemma3_text", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                          num_attention_heads=2, num_key_value_heads=1, head_dim=32, vocab_size=512, sliding_window=24,
                          layer_types=["sliding_attention", "full_attention"], max_position_embeddings=1024,
                          rms_norm_eps=1e-6, query_pre_attn_scalar=20, hidden_activation="gelu_pytorch_tanh",
                          rope_parameters=dict(
                              full_attention=dict(rope_type="linear", factor=2.0, rope_theta=20000.0),
                              sliding_attention=dict(rope_type="default", rope_theta=5000.0)),
                          tie_word_embeddings=True, bos_token_id=0, eos_token_id=1),
    # Rows of 256, for GGUF's super-blocks.
    "wide": dict(model_type="llama", hidden_size=256, intermediate_size=256, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=512,
                 max_position_embeddings=1024, rms_norm_eps=1e-5, rope_theta=10000.0,
                 tie_word_embeddings=True, hidden_act="silu", bos_token_id=0, eos_token_id=1),
    # A product so long that its split rows come in three parts.
    "long": dict(model_type="llama", hidden_size=64, intermediate_size=1632, num_hidden_layers=2,
                 num_attention_heads=2, num_key_value_heads=1, head_dim=32, vocab_size=512,
                 max_position_embeddings=1024, rms_norm_eps=1e-5, rope_theta=10000.0,
                 tie_word_embeddings=False, hidden_act="silu", bos_token_id=0, eos_token_id=1),
}
TEMPLATE = ("{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")


def gpt2_shapes(c):
    h = c["n_embd"]
    out = {"transformer.wte.weight": (c["vocab_size"], h), "transformer.wpe.weight": (c["n_positions"], h)}
    norms = ["ln_f"]
    for i in range(c["n_layer"]):
        p = f"h.{i}."
        norms += [p + "ln_1", p + "ln_2"]
        for name, shape in (("attn.c_attn", (h, 3 * h)), ("attn.c_proj", (h, h)), ("mlp.c_fc", (h, 4 * h)),
                            ("mlp.c_proj", (4 * h, h))):
            out |= {f"transformer.{p}{name}.weight": shape, f"transformer.{p}{name}.bias": shape[1:]}
    for norm in norms:
        out |= {f"transformer.{norm}.weight": (h,), f"transformer.{norm}.bias": (h,)}
    return out


def shapes(c):
    if c["model_type"] == "gpt2":
        return gpt2_shapes(c)
    head = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    h, f = c["hidden_size"], c["intermediate_size"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        out |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,),
                p + "self_attn.q_proj.weight": (q, h), p + "self_attn.k_proj.weight": (kv, h),
                p + "self_attn.v_proj.weight": (kv, h), p + "self_attn.o_proj.weight": (h, q),
                p + "mlp.gate_proj.weight": (f, h), p + "mlp.up_proj.weight": (f, h),
                p + "mlp.down_proj.weight": (h, f)}
        if c["model_type"] in ("qwen3", "gemma3_text"):
            out |= {p + "self_attn.q_norm.weight": (head,), p + "self_attn.k_norm.weight": (head,)}
        if c["model_type"] == "gemma3_text":
            out |= {p + "pre_feedforward_layernorm.weight": (h,), p + "post_feedforward_layernorm.weight": (h,)}
        if c["model_type"] == "qwen2":
            out |= {p + "self_attn.q_proj.bias": (q,), p + "self_attn.k_proj.bias": (kv,),
                    p + "self_attn.v_proj.bias": (kv,)}
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = (c["vocab_size"], h)
    return out


def weights(name):
    """Large enough that logits differ clearly; the same on every machine."""
    c = CONFIGS[name]
    generator = np.random.Generator(np.random.PCG64(len(name)))
    out = {}
    for key, shape in shapes(c).items():
        values = generator.integers(-2048, 2049, shape).astype(np.float32) / 2048
        if key.endswith("weight") and ("norm" in key or "ln_" in key):
            # Gemma stores the difference from one.
            out[key] = 0.1 * values + (c["model_type"] != "gemma3_text")
        elif len(shape) == 1:
            out[key] = 0.2 * values
        else:
            out[key] = values * np.float32(3.0 / np.sqrt(shape[1]))
    return out


def tokenizer_json():
    """256 bytes, a few merges, three special tokens; 512 ids at the most."""
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    symbols, extra = {b: chr(b) for b in printable}, 256
    for b in range(256):
        if b not in symbols:
            symbols[b] = chr(extra)
            extra += 1
    tokens = ["<|bos|>", "<|end|>", "<|start|>"] + [symbols[b] for b in range(256)]
    merges = []
    for left, right in [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("a", "n"), ("Ġ", "a"), ("e", "r"),
                        ("o", "n"), ("in", "g"), ("Ġ", "t"), ("a", "b"), ("ab", "c"), ("1", "2"), ("Ã", "©")]:
        merges.append([left, right])
        tokens.append(left + right)
    special = [dict(id=i, content=tokens[i], single_word=False, lstrip=False, rstrip=False, normalized=False,
                    special=True) for i in range(3)]
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    digits = dict(type="Digits", individual_digits=True)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=special, normalizer=dict(type="NFC"),
                pre_tokenizer=dict(type="Sequence", pretokenizers=[digits, level]), post_processor=None, decoder=level,
                model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                           end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, ignore_merges=False,
                           vocab={t: i for i, t in enumerate(tokens)}, merges=merges))


def safetensors(path, tensors):
    header, data, at = {}, [], 0
    for name, value in tensors.items():
        raw = value.tobytes()
        header[name] = dict(dtype={"float32": "F32", "float16": "F16"}[value.dtype.name], shape=list(value.shape),
                            data_offsets=[at, at + len(raw)])
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def write_folder(folder, name, tensors=None, shards=1):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(chat_template=TEMPLATE)))
    tensors = tensors or weights(name)
    if shards == 1:
        safetensors(folder / "model.safetensors", tensors)
        return folder
    index = {}
    for i in range(shards):
        part = dict(list(tensors.items())[i::shards])
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        safetensors(folder / file, part)
        index |= {key: file for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=index)))
    return folder


NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return "output.weight"
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def permute(value, heads):
    """llama.cpp's order of query and key rows."""
    return value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def add_tokenizer(writer, sentence_piece):
    """A byte-level BPE, or tokens and types of a SentencePiece BPE."""
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    if sentence_piece:
        tokens, types = sentence_piece
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
        writer.add_add_space_prefix(False)
    else:
        files = tokenizer_json()
        tokens = list(files["model"]["vocab"])
        types = [3 if i < 3 else 1 for i in range(len(tokens))]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_merges([" ".join(m) for m in files["model"]["merges"]])
        writer.add_chat_template(TEMPLATE)
    writer.add_token_list(tokens)
    writer.add_token_types(types)


BLOCKS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")


def mixed(name):
    """All of them in one file, as llama.cpp mixes them: layers differ, and one's gate and up do."""
    if "layers" not in name:
        return "Q6_K"
    layer, part = int(name.split(".")[2]), name.split(".")[-2].removesuffix("_proj")
    return (dict(q="Q8_0", k="Q4_0", v="Q4_1", o="Q5_0", gate="Q5_1", up="Q5_1", down="Q5_K") if layer == 0 else
            dict(q="Q4_K", k="Q5_K", v="Q6_K", o="Q4_0", gate="Q4_K", up="Q4_1", down="Q6_K")).get(part, "F32")


def write_gguf(path, name, dtype="F32", sentence_piece=None, byte=None, tensors=None):
    """Writes the checkpoint with its matrices in `dtype`, or in what it gives for their
    names, all bytes of their blocks `byte` if it is given; returns the f32 values that the file
    stands for, by Hugging Face name."""
    import gguf
    c = CONFIGS[name]
    writer = gguf.GGUFWriter(str(path), "qwen2" if c["model_type"] == "qwen2" else "llama")
    writer.add_name(name)
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    if "head_dim" in c:
        writer.add_key_length(c["head_dim"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c["rope_theta"])
    add_tokenizer(writer, sentence_piece)
    random = np.random.Generator(np.random.PCG64(3))
    values = {}
    for key, value in (tensors or weights(name)).items():
        own = dtype(key) if callable(dtype) else dtype
        kind = gguf.GGMLQuantizationType[own]
        heads = {"q_proj": c["num_attention_heads"], "k_proj": c["num_key_value_heads"]}.get(key.split(".")[-2])
        turn = heads and c["model_type"] == "llama"
        stored = permute(value, heads) if turn else value
        if value.ndim == 1 or own == "F32":
            raw, used = stored, gguf.GGMLQuantizationType.F32
        elif own in BLOCKS and (byte is not None or own.endswith("_K")):
            # No encoder of some at hand: random blocks with sane scales are as good a test.
            block, size = gguf.GGML_QUANT_SIZES[kind]
            raw = random.integers(0, 256, (stored.shape[0], stored.shape[1] // block * size), dtype=np.uint8)
            if byte is not None:
                raw[:] = byte
            blocks = raw.reshape(-1, size)
            scale = np.array([2e-4], np.float16).view(np.uint8)
            for at in (208,) if own == "Q6_K" else (0, 2) if own in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else (0,):
                blocks[:, at:at + 2] = scale
            used = kind
        else:
            raw, used = gguf.quants.quantize(stored, kind), kind
        writer.add_tensor(gguf_name(key), raw, raw_dtype=used)
        back = stored if used == gguf.GGMLQuantizationType.F32 else \
            gguf.quants.dequantize(raw, kind).reshape(stored.shape)
        if turn:
            inverse = permute(np.arange(back.shape[0]), heads).argsort()
            back = back[inverse]
        values[key] = np.ascontiguousarray(back, np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values
