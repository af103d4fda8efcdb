"""Decoders as ONNX files: raised to fm, they are what checkpoints are."""
import json
import pathlib

import numpy as np
import onnx
import pytest

import onnx_models
import tiny

REFERENCES = json.loads((pathlib.Path(__file__).parent / "references.json").read_text())
MODELS = ["llama", "llama3", "qwen2", "qwen3", "mistral", "gpt2"]
# A cache that is written in place is looked at through no mask.
PAIRS = [(model, style) for model in MODELS for style in ("spelled", "standard", "scatter", "genai")
         if (model, style) != ("mistral", "scatter")]


def compiled(isthmus, folder, model, style, *options):
    path = onnx_models.Writer(model, style).write(folder / "model.onnx")
    report = isthmus.run(("compile", path, "--weights", "f32", "-o", folder / "m.isth", *options), 120, None)
    assert report.returncode == 0 and "note" not in report.stderr, report.stderr
    return folder / "m.isth"


@pytest.mark.parametrize("model,style", PAIRS)
def test_equal_to_transformers(isthmus, tmp_path, model, style):
    """The same references as for checkpoints, at the same distance."""
    bundle = compiled(isthmus, tmp_path, model, style)
    for case in REFERENCES[model]:
        assert isthmus.tokens(bundle, case["prompt"]) == case["tokens"]
        logits = isthmus.logits(bundle, case["prompt"] + case["tokens"], tmp_path)
        assert np.abs(logits[-1] - np.array(case["last_logits"], np.float32)).max() <= 1e-4 * case["scale"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_quantised_weights(isthmus, tmp_path, model, bits):
    """MatMulNBits: the values that a checkpoint would have."""
    bundle = compiled(isthmus, tmp_path, model, f"genai{bits}")
    tiny.write_folder(tmp_path / "model", model, onnx_models.quantized(model, bits))
    isthmus("compile", tmp_path / "model", "--weights", "f32", "-o", tmp_path / "other.isth")
    ids = [(7 * i + 3) % 500 for i in range(50)]
    ours, other = (isthmus.logits(b, ids, tmp_path) for b in (bundle, tmp_path / "other.isth"))
    assert np.abs(ours - other).max() <= 1e-5 * np.abs(other).max()
    plain = compiled(isthmus, tmp_path, model, "genai")
    assert np.abs(isthmus.logits(plain, ids, tmp_path) - other).max() > 1e-3 * np.abs(other).max()


@pytest.mark.parametrize("style", ["spelled", "standard", "genai4"])
def test_graph_of_tensors(isthmus, tmp_path, style):
    """With --graph the cache goes in and out; logits are those of the model."""
    bundle = compiled(isthmus, tmp_path, "llama", style)
    ids = [(7 * i + 3) % 500 for i in range(9)]
    wanted = isthmus.logits(bundle, ids, tmp_path)
    compiled(isthmus, tmp_path, "llama", style, "--graph")
    c = tiny.CONFIGS["llama"]
    model = onnx.load(tmp_path / "model.onnx")
    cache = {i.name: np.zeros((1, c["num_key_value_heads"], 0, c["head_dim"]), np.float32)
             for i in model.graph.input if "past" in i.name}
    for part in (range(5), range(5, 8), range(8, 9)):
        feeds = dict(input_ids=np.array([ids])[:, list(part)], position_ids=np.array([list(part)]),
                     attention_mask=np.ones((1, part.stop), np.int64), **cache)
        args = []
        for name in [i.name for i in model.graph.input]:
            np.save(tmp_path / f"{name}.npy", feeds[name])
            args += ["--input", f"{name}={tmp_path}/{name}.npy"]
        isthmus("run", bundle, *args, "-o", tmp_path / "out")
        logits = np.load(tmp_path / "out/logits.npy")[0]
        assert np.abs(logits - wanted[part.start:part.stop]).max() <= 1e-4 * np.abs(wanted).max()
        cache = {name: np.load(tmp_path / "out" / (name.replace("past_key_values", "present") + ".npy"))
                 for name in cache}


def test_serving_what_lies_beside(isthmus, tmp_path):
    """Tokenizer and length of the context come from the folder, or from the one around it."""
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    tiny.write_folder(folder, "llama")
    bundle = compiled(isthmus, folder / "onnx", "llama", "standard")
    described = json.loads(isthmus("inspect", bundle, "--json"))
    assert "up to 1024 tokens of 512" in isthmus("inspect", bundle)
    isthmus("compile", folder, "--weights", "f32", "-o", tmp_path / "native.isth")
    ask = ("--prompt", "hello", "--max-tokens", 8, "--json")
    assert (json.loads(isthmus("run", bundle, *ask))["tokens"]
            == json.loads(isthmus("run", tmp_path / "native.isth", *ask))["tokens"])


def edited(path, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def first(graph, op):
    return next(node for node in graph.node if node.op_type == op)


def set_table(graph, name, change):
    tensor = next(t for t in graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), name))


# What looks like a decoder and is none, and what is to be said of it.
CHANGES = {
    "angles": ("standard", lambda g: set_table(g, "cos_cache", lambda t: t + np.float32(0.01) * (np.arange(len(t)) == 9)[:, None]),
               "angles of position 9 are not those of rotary embedding"),
    "capped": ("standard", lambda g: first(g, "Attention").attribute.append(onnx.helper.make_attribute("softcap", 20.0)),
               "capped"),
    "looks ahead": ("spelled", lambda g: first(g, "LessOrEqual").__setattr__("op_type", "GreaterOrEqual"),
                    "neither all positions up to its own nor a window"),
    "activation": ("spelled", lambda g: first(g, "Sigmoid").__setattr__("op_type", "Tanh"),
                   "neither of both is an activation"),
    "halves": ("spelled", lambda g: first(g, "Neg").__setattr__("op_type", "Abs"), "no counterpart in fm"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_not_raised(isthmus, tmp_path, change):
    """It stays a graph, and the node that stands in the way is named."""
    style, edit, reason = CHANGES[change]
    path = onnx_models.Writer("llama", style).write(tmp_path / "model.onnx")
    edited(path, edit)
    report = isthmus.run(("compile", path, "-o", tmp_path / "m.isth", "--json"), 120, None)
    assert report.returncode == 0
    assert reason in json.loads(report.stdout)["not_raised"]
    assert "runs as a graph of tensors" in report.stderr and "node '" in report.stderr and reason in report.stderr
    assert "input_ids: int64 [1, ?]" in isthmus("inspect", tmp_path / "m.isth")
