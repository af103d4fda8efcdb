"""The decoders of tiny.py as ONNX files, spelled as exporters spell them."""
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tiny

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
STYLES = {
    # PyTorch's exporter, of before the standard had such operators.
    "spelled": 17,
    # The standard's own operators; caches grow, or are written in place.
    "standard": 24,
    "scatter": 24,
    # The builder of onnxruntime-genai; with weights of 4 and of 8 bits in blocks.
    "genai": 22, "genai4": 22, "genai8": 22,
}


def quantize(weight, bits, block=32):
    """Blocks of a row share scale and zero point. Gives integers, scales, zero points and the values that they say."""
    rows, columns = weight.shape
    x = weight.reshape(rows, columns // block, block)
    most = 2 ** bits - 1
    low = np.minimum(x.min(-1), 0)
    scale = ((np.maximum(x.max(-1), 0) - low) / most).astype(np.float32)
    zero = np.round(-low / scale)
    q = np.clip(np.round(x / scale[..., None]) + zero[..., None], 0, most)
    values = ((q - zero[..., None]) * scale[..., None]).astype(np.float32).reshape(rows, columns)
    return q.astype(np.uint8), scale, zero.astype(np.uint8), values


def packed(values):
    """Two to a byte, the first lowest; rows end on whole bytes."""
    return values[..., 0::2] | values[..., 1::2] << 4


def quantized(name, bits):
    """The weights of a model whose products are quantised, as f32."""
    return {key: quantize(value, bits)[3] if "_proj.weight" in key else value
            for key, value in tiny.weights(name).items()}


class Writer:
    def __init__(self, name, style):
        self.c, self.w, self.style = tiny.CONFIGS[name], tiny.weights(name), style
        self.genai = style.startswith("genai")
        self.gpt2 = self.c["model_type"] == "gpt2"
        c = self.c
        self.hidden = c["n_embd"] if self.gpt2 else c["hidden_size"]
        self.heads = c["n_head"] if self.gpt2 else c["num_attention_heads"]
        self.kv_heads = self.heads if self.gpt2 else c["num_key_value_heads"]
        self.size = c.get("head_dim", self.hidden // self.heads)
        self.layers = c["n_layer"] if self.gpt2 else c["num_hidden_layers"]
        self.epsilon = c["layer_norm_epsilon"] if self.gpt2 else c["rms_norm_eps"]
        self.window = c.get("sliding_window", 0)
        self.nodes, self.constants, self.made = [], {}, 0

    # Nodes

    def op(self, op, *inputs, outputs=1, domain="", **attributes):
        self.made += 1
        names = [f"v{self.made}_{i}" if outputs > 1 else f"v{self.made}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, f"node{self.made}", domain=domain, **attributes))
        return names if outputs > 1 else names[0]

    def constant(self, value, name=None):
        value = np.asarray(value)
        name = name or f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def number(self, value):
        return self.constant(np.array(value, np.float32))

    def weight(self, key):
        return self.constant(self.w[key], key)

    # What models are made of

    def linear(self, x, key):
        if key + ".weight" not in self.w:
            key = "model.embed_tokens"
        weight = self.w[key + ".weight"]
        bits = {"genai4": 4, "genai8": 8}.get(self.style)
        if bits and "_proj" in key and not self.gpt2:
            q, scale, zero, _ = quantize(weight, bits)
            y = self.op("MatMulNBits", x, self.constant(packed(q) if bits == 4 else q, key + ".q"),
                        self.constant(scale.reshape(-1), key + ".scales"),
                        self.constant((packed(zero) if bits == 4 else zero).reshape(-1), key + ".zeros"),
                        domain="com.microsoft", N=weight.shape[0], K=weight.shape[1], bits=bits, block_size=32)
        else:
            stored = weight if self.gpt2 and "wte" not in key else weight.T
            y = self.op("MatMul", x, self.constant(stored, key + ".matrix"))
        return self.op("Add", self.weight(key + ".bias"), y) if key + ".bias" in self.w else y

    def norm(self, x, key):
        if self.gpt2:
            return self.op("LayerNormalization", x, self.weight(key + ".weight"), self.weight(key + ".bias"),
                           axis=-1, epsilon=self.epsilon)
        if self.genai:
            return self.op("SimplifiedLayerNormalization", x, self.weight(key + ".weight"), axis=-1,
                           epsilon=self.epsilon)
        if self.style != "spelled":
            return self.op("RMSNormalization", x, self.weight(key + ".weight"), axis=-1, epsilon=self.epsilon)
        mean = self.op("ReduceMean", self.op("Pow", x, self.number(2)), axes=[-1], keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.number(self.epsilon)))
        return self.op("Mul", self.weight(key + ".weight"), self.op("Mul", x, self.op("Div", self.number(1), root)))

    def gelu(self, x):
        cubed = self.op("Mul", self.op("Pow", x, self.number(3)), self.number(0.044715))
        tanh = self.op("Tanh", self.op("Mul", self.op("Add", x, cubed), self.number(np.sqrt(2 / np.pi))))
        return self.op("Mul", self.op("Mul", self.number(0.5), x), self.op("Add", self.number(1), tanh))

    def split_heads(self, x, heads):
        batch = self.op("Gather", self.op("Shape", x), self.ints(0), axis=0)
        length = self.op("Gather", self.op("Shape", x), self.ints(1), axis=0)
        shape = self.op("Concat", batch, length, self.ints(heads), self.ints(-1), axis=0)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def frequencies(self):
        half = self.size // 2
        frequencies = self.c.get("rope_theta", 1e4) ** (-np.arange(half) / half)
        if scaling := self.c.get("rope_scaling"):
            waves = 2 * np.pi / frequencies
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            smooth = (scaling["original_max_position_embeddings"] / waves - low) / (high - low)
            smooth = np.clip(smooth, 0, 1)
            frequencies = frequencies * (smooth + (1 - smooth) / scaling["factor"])
        return frequencies

    def tables(self):
        angles = np.arange(self.c["max_position_embeddings"])[:, None] * self.frequencies()
        return (self.constant(np.cos(angles).astype(np.float32), "cos_cache"),
                self.constant(np.sin(angles).astype(np.float32), "sin_cache"))

    def rotate(self, x, cosine, sine):
        """As in PyTorch, halves exchanged."""
        half = self.size // 2
        first = self.op("Slice", x, self.ints(0), self.ints(half), self.ints(-1))
        second = self.op("Slice", x, self.ints(half), self.ints(2 ** 63 - 1), self.ints(-1))
        turned = self.op("Concat", self.op("Neg", second), first, axis=-1)
        return self.op("Add", self.op("Mul", x, cosine), self.op("Mul", turned, sine))

    def mask(self, ids, past):
        """What may be attended to: positions up to a token's own, of a window, that attention_mask has."""
        length = self.op("Squeeze", self.op("Gather", self.op("Shape", ids), self.ints(1), axis=0))
        before = self.op("Squeeze", self.op("Gather", self.op("Shape", past), self.ints(2), axis=0))
        total = self.op("Add", length, before)
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        positions = self.op("Range", zero, total, one)
        own = self.op("Unsqueeze", self.op("Range", before, total, one), self.ints(1))
        seen = self.op("LessOrEqual", positions, own)
        if self.window:
            least = self.op("Sub", own, self.constant(np.int64(self.window)))
            seen = self.op("And", seen, self.op("Greater", positions, least))
        padding = self.op("Unsqueeze", self.op("Cast", "attention_mask", to=TensorProto.BOOL), self.ints(1, 2))
        seen = self.op("And", self.op("Unsqueeze", seen, self.ints(0, 1)), padding)
        return self.op("Where", seen, self.number(0), self.number(np.finfo(np.float32).min))

    def attention(self, q, k, v, layer):
        past = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
        present = [f"present.{layer}.{kind}" for kind in ("key", "value")]
        scale = 1 / np.sqrt(self.size)
        if self.genai:
            y = self.op("GroupQueryAttention", q, k, v, *past, "last", "total", *(self.rotary if not self.gpt2 else ()),
                        outputs=3, domain="com.microsoft", num_heads=self.heads, kv_num_heads=self.kv_heads,
                        do_rotary=int(not self.gpt2), local_window_size=self.window or -1)
            self.nodes += [helper.make_node("Identity", [a], [b]) for a, b in zip(y[1:], present)]
            return y[0]
        if self.style == "standard":
            y = self.op("Attention", q, k, v, self.seen if self.window else "", *past, outputs=3, is_causal=1,
                        q_num_heads=self.heads, kv_num_heads=self.kv_heads)
            self.nodes += [helper.make_node("Identity", [a], [b]) for a, b in zip(y[1:], present)]
            return y[0]
        if self.style == "scatter":
            cached = [self.op("TensorScatter", cache, self.split_heads(x, self.kv_heads), "write_indices")
                      for cache, x in zip(past, (k, v))]
            self.nodes += [helper.make_node("Identity", [a], [b]) for a, b in zip(cached, present)]
            y = self.op("Attention", self.split_heads(q, self.heads), *cached, "", "", "", "kv_length", is_causal=1)
        else:
            if not self.gpt2:
                q, k = (self.rotate(x, *self.rotary) for x in (q, k))
            cached = [self.op("Concat", cache, x, axis=-2) for cache, x in zip(past, (k, v))]
            self.nodes += [helper.make_node("Identity", [a], [b]) for a, b in zip(cached, present)]
            k, v = (self.repeated(x) for x in cached)
            scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
            scores = self.op("Add", self.op("Mul", scores, self.number(scale)), self.seen)
            y = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        y = self.op("Transpose", y, perm=[0, 2, 1, 3])
        return self.op("Reshape", y, self.ints(0, 0, self.heads * self.size))

    def repeated(self, x):
        groups = self.heads // self.kv_heads
        if groups == 1:
            return x
        length = self.op("Gather", self.op("Shape", x), self.ints(2), axis=0)
        wide = self.op("Concat", self.ints(1), self.ints(self.kv_heads), self.ints(groups), length,
                       self.ints(self.size), axis=0)
        whole = self.op("Concat", self.ints(1), self.ints(self.heads), length, self.ints(self.size), axis=0)
        return self.op("Reshape", self.op("Expand", self.op("Unsqueeze", x, self.ints(2)), wide), whole)

    def prepare(self):
        """What layers share: angles, masks, lengths."""
        if self.genai:
            total = self.op("ReduceSum", "attention_mask", self.ints(1), keepdims=0)
            self.nodes += [
                helper.make_node("Cast", [self.op("Sub", total, self.ints(1))], ["last"], to=TensorProto.INT32),
                helper.make_node("Cast", [self.op("Gather", self.op("Shape", "attention_mask"),
                                                  self.constant(np.int64(1)), axis=0)], ["total"],
                                 to=TensorProto.INT32)]
            if not self.gpt2:
                self.rotary = self.tables()
            return
        if self.style == "spelled":
            if not self.gpt2:
                angles = self.op("Mul", self.op("Cast", self.op("Unsqueeze", "position_ids", self.ints(2)), to=F32),
                                 self.constant(self.frequencies().astype(np.float32)))
                both = self.op("Concat", angles, angles, axis=-1)
                self.rotary = [self.op("Unsqueeze", self.op(f, both), self.ints(1)) for f in ("Cos", "Sin")]
            self.seen = self.mask("input_ids", "past_key_values.0.key")
        elif not self.gpt2:
            self.rotary = self.tables()
            if self.window:
                self.seen = self.mask("input_ids", "past_key_values.0.key")

    def projections(self, x, prefix, layer):
        if self.gpt2:
            fused = self.linear(x, f"{prefix}attn.c_attn")
            q, k, v = self.op("Split", fused, self.ints(*[self.hidden] * 3), outputs=3, axis=-1)
            counts = (self.heads,) * 3
        else:
            q, k, v = (self.linear(x, f"{prefix}self_attn.{n}_proj") for n in "qkv")
            counts = (self.heads, self.kv_heads, self.kv_heads)
        if self.c["model_type"] == "qwen3":
            def of_heads(x, key, heads):
                split = self.op("Reshape", x, self.ints(0, 0, heads, self.size))
                return self.op("Reshape", self.norm(split, key), self.ints(0, 0, heads * self.size))
            q = of_heads(q, f"{prefix}self_attn.q_norm", self.heads)
            k = of_heads(k, f"{prefix}self_attn.k_norm", self.kv_heads)
        if self.style == "spelled":
            return [self.split_heads(x, count) for x, count in zip((q, k, v), counts)]
        if self.style in ("standard", "scatter") and not self.gpt2:
            q, k = (self.op("RotaryEmbedding", x, *self.rotary, "position_ids", num_heads=count)
                    for x, count in zip((q, k), counts))
        return q, k, v

    def layer(self, x, i):
        p = f"transformer.h.{i}." if self.gpt2 else f"model.layers.{i}."
        norms = ("ln_1", "ln_2") if self.gpt2 else ("input_layernorm", "post_attention_layernorm")
        y = self.attention(*self.projections(self.norm(x, p + norms[0]), p, i), i)
        y = self.linear(y, p + ("attn.c_proj" if self.gpt2 else "self_attn.o_proj"))
        if self.genai and not self.gpt2:
            y, _, _, x = self.op("SkipSimplifiedLayerNormalization", x, y, self.weight(f"{p}{norms[1]}.weight"),
                                 outputs=4, domain="com.microsoft", epsilon=self.epsilon)
            self.nodes[-1].output[1:3] = ["", ""]
        else:
            x = self.op("Add", x, y)
            y = self.norm(x, p + norms[1])
        if self.gpt2:
            return self.op("Add", x, self.linear(self.gelu(self.linear(y, p + "mlp.c_fc")), p + "mlp.c_proj"))
        gate, up = (self.linear(y, f"{p}mlp.{n}_proj") for n in ("gate", "up"))
        gated = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)
        return self.op("Add", x, self.linear(gated, p + "mlp.down_proj"))

    def write(self, path):
        self.prepare()
        table = "transformer.wte" if self.gpt2 else "model.embed_tokens"
        x = self.op("Gather", self.weight(table + ".weight"), "input_ids")
        if self.gpt2:
            x = self.op("Add", x, self.op("Gather", self.weight("transformer.wpe.weight"), "position_ids"))
        for i in range(self.layers):
            x = self.layer(x, i)
        x = self.norm(x, "transformer.ln_f" if self.gpt2 else "model.norm")
        logits = self.linear(x, table if self.gpt2 else "lm_head")
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        fixed = self.style == "scatter"
        lengths = ("max", "max") if fixed else ("past", "total")
        cache = [helper.make_tensor_value_info(f"{{}}.{i}.{kind}", F32, [1, self.kv_heads, "{}", self.size])
                 for i in range(self.layers) for kind in ("key", "value")]

        def named(prefix, length):
            out = []
            for info in cache:
                info = onnx.ValueInfoProto.FromString(info.SerializeToString())
                info.name = info.name.format(prefix)
                info.type.tensor_type.shape.dim[2].dim_param = length
                out.append(info)
            return out
        inputs = [helper.make_tensor_value_info("input_ids", I64, [1, "sequence"])]
        if not self.genai or self.gpt2:
            inputs.append(helper.make_tensor_value_info("position_ids", I64, [1, "sequence"]))
        if self.genai or self.style == "spelled" or (self.window and not fixed):
            inputs.append(helper.make_tensor_value_info("attention_mask", I64, [1, "total"]))
        if fixed:
            inputs += [helper.make_tensor_value_info(n, I64, [1]) for n in ("write_indices", "kv_length")]
        outputs = [helper.make_tensor_value_info("logits", F32, [1, "sequence", self.c["vocab_size"]])]
        graph = helper.make_graph(self.nodes, "decoder", inputs + named("past_key_values", lengths[0]),
                                  outputs + named("present", lengths[1]), list(self.constants.values()))
        opsets = [helper.make_opsetid("", STYLES[self.style]), helper.make_opsetid("com.microsoft", 1)]
        pathlib.Path(path).write_bytes(
            helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
        return path
