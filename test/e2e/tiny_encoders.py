"""Small encoders generated from a seed, as Hugging Face folders."""
import json
import pathlib

import numpy as np

import tiny

LABELS = ["ape", "bee", "cat", "dog", "eel"]
BERT = dict(model_type="bert", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            vocab_size=512, max_position_embeddings=320, type_vocab_size=2, layer_norm_eps=1e-12, hidden_act="gelu")
SENTENCE = [dict(idx=0, name="0", path="", type="sentence_transformers.models.Transformer"),
            dict(idx=1, name="1", path="1_Pooling", type="sentence_transformers.models.Pooling"),
            dict(idx=2, name="2", path="2_Normalize", type="sentence_transformers.models.Normalize")]
# More positions than one partition of attention has; patches of a width that int8 does not divide.
VIT = dict(model_type="vit", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
           image_size=72, patch_size=4, num_channels=3, layer_norm_eps=1e-6, hidden_act="gelu",
           id2label={str(i): label for i, label in enumerate(LABELS)}, label2id={l: i for i, l in enumerate(LABELS)})
VIT_IMAGES = dict(image_processor_type="ViTImageProcessor", do_resize=True, size=dict(height=72, width=72), resample=2,
                  do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean=[0.5, 0.4, 0.3],
                  image_std=[0.2, 0.3, 0.4])
CLIP = dict(model_type="clip", projection_dim=32, logit_scale_init_value=2.0,
            text_config=dict(model_type="clip_text_model", hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                             num_attention_heads=2, max_position_embeddings=24, vocab_size=640, hidden_act="quick_gelu",
                             bos_token_id=0, eos_token_id=1, layer_norm_eps=1e-5),
            vision_config=dict(model_type="clip_vision_model", hidden_size=64, intermediate_size=96,
                               num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, num_channels=3,
                               hidden_act="quick_gelu", layer_norm_eps=1e-5))
CLIP_IMAGES = dict(image_processor_type="CLIPImageProcessor", do_resize=True, size=dict(shortest_edge=36), resample=3,
                   do_center_crop=True, crop_size=dict(height=32, width=32), do_rescale=True, rescale_factor=1 / 255,
                   do_normalize=True, image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28], do_convert_rgb=True)


def product(prefix, outputs, inputs, bias=True):
    return {f"{prefix}.weight": (outputs, inputs)} | ({f"{prefix}.bias": (outputs,)} if bias else {})


def norm(prefix, width):
    return {f"{prefix}.weight": (width,), f"{prefix}.bias": (width,)}


def bert_shapes():
    c = BERT
    h, f = c["hidden_size"], c["intermediate_size"]
    e = "embeddings."
    out = {e + "word_embeddings.weight": (c["vocab_size"], h),
           e + "position_embeddings.weight": (c["max_position_embeddings"], h),
           e + "token_type_embeddings.weight": (2, h)} | norm(e + "LayerNorm", h) | product("pooler.dense", h, h)
    for i in range(c["num_hidden_layers"]):
        p = f"encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            out |= product(p + name, h, h)
        out |= norm(p + "attention.output.LayerNorm", h) | norm(p + "output.LayerNorm", h)
        out |= product(p + "intermediate.dense", f, h) | product(p + "output.dense", h, f)
    return out


def vit_shapes(classifier=True):
    c, root = VIT, "vit." if classifier else ""
    h, f, p = c["hidden_size"], c["intermediate_size"], c["patch_size"]
    e = root + "embeddings."
    out = {e + "cls_token": (1, 1, h), e + "position_embeddings": (1, (c["image_size"] // p) ** 2 + 1, h),
           e + "patch_embeddings.projection.weight": (h, 3, p, p), e + "patch_embeddings.projection.bias": (h,)}
    for i in range(c["num_hidden_layers"]):
        l = f"{root}encoder.layer.{i}."
        for name in ("query", "key", "value"):
            out |= product(f"{l}attention.attention.{name}", h, h)
        out |= product(l + "attention.output.dense", h, h) | product(l + "intermediate.dense", f, h)
        out |= product(l + "output.dense", h, f) | norm(l + "layernorm_before", h) | norm(l + "layernorm_after", h)
    out |= norm(root + "layernorm", h)
    return out | (product("classifier", len(LABELS), h) if classifier else product("pooler.dense", h, h))


def clip_shapes():
    out = {"logit_scale": ()}
    for tower, c in (("text", CLIP["text_config"]), ("vision", CLIP["vision_config"])):
        h, f = c["hidden_size"], c["intermediate_size"]
        root = tower + "_model."
        for i in range(c["num_hidden_layers"]):
            p = f"{root}encoder.layers.{i}."
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                out |= product(f"{p}self_attn.{name}", h, h)
            out |= product(p + "mlp.fc1", f, h) | product(p + "mlp.fc2", h, f)
            out |= norm(p + "layer_norm1", h) | norm(p + "layer_norm2", h)
    t, v = CLIP["text_config"], CLIP["vision_config"]
    h, w, p = t["hidden_size"], v["hidden_size"], v["patch_size"]
    out |= {"text_model.embeddings.token_embedding.weight": (t["vocab_size"], h),
            "text_model.embeddings.position_embedding.weight": (t["max_position_embeddings"], h),
            "vision_model.embeddings.class_embedding": (w,),
            "vision_model.embeddings.patch_embedding.weight": (w, 3, p, p),
            "vision_model.embeddings.position_embedding.weight": ((v["image_size"] // p) ** 2 + 1, w)}
    out |= norm("text_model.final_layer_norm", h) | norm("vision_model.pre_layrnorm", w)
    out |= norm("vision_model.post_layernorm", w)
    return out | product("text_projection", CLIP["projection_dim"], h, False) | \
        product("visual_projection", CLIP["projection_dim"], w, False)


def weights(shapes):
    """Large enough that results differ clearly; the same on every machine."""
    generator = np.random.Generator(np.random.PCG64(11))
    out = {}
    for key, shape in shapes.items():
        values = generator.integers(-2048, 2049, shape).astype(np.float32) / 2048
        if key == "logit_scale":
            out[key] = np.float32(1.5).reshape(())
        elif "norm" in key.lower() and key.endswith("weight"):
            out[key] = 1 + np.float32(0.1) * values
        elif len(shape) == 1:
            out[key] = np.float32(0.2) * values
        else:
            out[key] = values * np.float32(2.0 / np.sqrt(np.prod(shape[1:])))
    return out


def wordpiece_json():
    """Letters, digits and marks, inside words too, and some whole words."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens += list(letters) + ["##" + c for c in letters] + list(".,:;!?'\"()[]{}<>|/\\-_=+*&%$#@^~`")
    tokens += ["the", "cat", "dog", "sits", "##s", "##ing", "an", "is", "##th", "##mus", "over", "##ly"]
    tokens = list(dict.fromkeys(tokens))
    special = [dict(id=i, content=tokens[i], single_word=False, lstrip=False, rstrip=False, normalized=False,
                    special=True) for i in range(5)]
    ids = {name: dict(id=name, ids=[tokens.index(name)], tokens=[name]) for name in ("[CLS]", "[SEP]")}
    pieces = [{"SpecialToken": dict(id="[CLS]", type_id=0)}, {"Sequence": dict(id="A", type_id=0)},
              {"SpecialToken": dict(id="[SEP]", type_id=0)}]
    return dict(version="1.0", truncation=None, padding=None, added_tokens=special,
                normalizer=dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None,
                                lowercase=True),
                pre_tokenizer=dict(type="BertPreTokenizer"),
                post_processor=dict(type="TemplateProcessing", single=pieces, pair=pieces, special_tokens=ids),
                decoder=dict(type="WordPiece", prefix="##", cleanup=True),
                model=dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##",
                           max_input_chars_per_word=100, vocab={t: i for i, t in enumerate(tokens)}))


def clip_json():
    """Bytes, each of which may end a word, and a few merges."""
    plain = tiny.tokenizer_json()
    symbols = [t for t in plain["model"]["vocab"] if len(t) == 1]
    tokens = ["<|start|>", "<|end|>"] + [s for s in symbols] + [s + "</w>" for s in symbols]
    merges = [["t", "h"], ["th", "e</w>"], ["c", "a"], ["ca", "t</w>"], ["d", "o"], ["do", "g</w>"]]
    tokens += ["".join(m) for m in merges]
    special = [dict(id=i, content=tokens[i], single_word=False, lstrip=False, rstrip=False, normalized=False,
                    special=True) for i in range(2)]
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    words = r"<\|start\|>|<\|end\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    return dict(version="1.0", truncation=None, padding=None, added_tokens=special,
                normalizer=dict(type="Sequence", normalizers=[dict(type="NFC"), dict(
                    type="Replace", pattern=dict(Regex=r"\s+"), content=" "), dict(type="Lowercase")]),
                pre_tokenizer=dict(type="Sequence", pretokenizers=[
                    dict(type="Split", pattern=dict(Regex=words), behavior="Removed", invert=True), level]),
                post_processor=dict(type="RobertaProcessing", sep=["<|end|>", 1], cls=["<|start|>", 0],
                                    trim_offsets=False, add_prefix_space=False),
                decoder=level, model=dict(type="BPE", dropout=None, unk_token="<|end|>", continuing_subword_prefix="",
                                          end_of_word_suffix="</w>", fuse_unk=False, byte_fallback=False,
                                          ignore_merges=False, vocab={t: i for i, t in enumerate(tokens)},
                                          merges=merges))


def write_folder(folder, name):
    """`name`: sentence (BERT, mean and normalised), bert (its first row), vit, vit_features or clip."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def write(file, content):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))

    if name in ("sentence", "bert"):
        config, shapes = BERT, bert_shapes()
        write("tokenizer.json", wordpiece_json())
        cls = name == "bert"
        write("modules.json", SENTENCE[:2] if cls else SENTENCE)
        write("1_Pooling/config.json", dict(word_embedding_dimension=64, pooling_mode_cls_token=cls,
                                            pooling_mode_mean_tokens=not cls, pooling_mode_max_tokens=False))
    elif name in ("vit", "vit_features"):
        config, shapes = VIT, vit_shapes(name == "vit")
        write("preprocessor_config.json", VIT_IMAGES)
    else:
        config, shapes = CLIP, clip_shapes()
        write("preprocessor_config.json", CLIP_IMAGES)
        write("tokenizer.json", clip_json())
    write("config.json", config)
    tiny.safetensors(folder / "model.safetensors", weights(shapes))
    return folder


GGUF_NAMES = {"embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
              "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm",
              "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
              "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
              "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"}


def write_gguf(path):
    """The checkpoint 'sentence' as llama.cpp's converter writes it."""
    import gguf
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_block_count(BERT["num_hidden_layers"])
    writer.add_context_length(BERT["max_position_embeddings"])
    writer.add_embedding_length(BERT["hidden_size"])
    writer.add_feed_forward_length(BERT["intermediate_size"])
    writer.add_head_count(BERT["num_attention_heads"])
    writer.add_layer_norm_eps(BERT["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    tokens = list(wordpiece_json()["model"]["vocab"])
    writer.add_tokenizer_model("bert")
    # What begins a word is marked, not what goes on.
    writer.add_token_list([t if i < 5 else t[2:] if t.startswith("##") else "\u2581" + t for i, t in enumerate(tokens)])
    writer.add_token_types([3 if i < 5 else 1 for i in range(len(tokens))])
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))
    for name, value in weights(bert_shapes()).items():
        if name.startswith("pooler"):
            continue
        layer, stem, kind = "", *name.rsplit(".", 1)
        if stem.startswith("encoder.layer."):
            _, _, number, stem = stem.split(".", 3)
            layer = f"blk.{number}."
        writer.add_tensor(f"{layer}{GGUF_NAMES[stem]}.{kind}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def image(width, height, seed=0):
    """Smooth colours, noise, and hard edges."""
    generator = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width]
    out = np.stack([128 + 100 * np.sin(x / 7), 255 * y / height, 255 * ((x // 5 + y // 9) % 2)], -1)
    return np.clip(out + generator.integers(-20, 21, out.shape), 0, 255).astype(np.uint8)


def pixel_values(n, size):
    """What would come of preprocessing: [n, 3, size, size] of f32."""
    values = np.stack([image(size, size, seed) for seed in range(n)]).astype(np.float32) / 128 - 1
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
