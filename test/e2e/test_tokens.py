"""Tokens and logits against transformers (committed references) and the interpreter."""
import json
import pathlib
import subprocess

import numpy as np
import pytest

from conftest import BIN, needs_matrix_unit

REFERENCES = json.loads((pathlib.Path(__file__).parent / "references.json").read_text())


@pytest.mark.parametrize("model,split", [(model, False) for model in REFERENCES] + [("llama", True), ("qwen2", True)])
def test_equal_to_transformers(isthmus, bundles, tmp_path, model, split):
    bundle = bundles(model, "f32", split=split)
    for case in REFERENCES[model]:
        assert case["least_gap"] > 1e-3  # otherwise the reference decides nothing
        assert isthmus.tokens(bundle, case["prompt"]) == case["tokens"]
        logits = isthmus.logits(bundle, case["prompt"] + case["tokens"], tmp_path)
        error = np.abs(logits[-1] - np.array(case["last_logits"], np.float32)).max()
        assert error <= 1e-4 * case["scale"]


OPTIONS = [
    [], ["--fm-quantize-weights=format=f16"], ["--fm-quantize-weights=format=int8"],
    ["--fm-quantize-weights=format=int8 scales=row"],
    ["--fm-quantize-weights=format=int7"], ["--fm-quantize-weights=format=int7 scales=row"],
    ["--fm-quantize-weights=format=bf16"], ["--fm-set-kv-format=format=bf16"], ["--fm-set-kv-format=format=int8"],
    ["--fm-quantize-weights=format=int4"], ["--fm-quantize-weights=format=int4 scales=row"], ["--fm-prune-weights"], ["--fm-limit-kv=budget=24"], ["--fm-set-kv-format"],
    ["--fm-prune-weights=pattern=unstructured", "--fm-quantize-weights=format=int4", "--fm-limit-kv=budget=40"]]
# The other architectures: what they have of their own, in floats and in integers.
OTHERS = [model for model in REFERENCES if model not in ("llama", "qwen2")]


@pytest.mark.parametrize("model,options", [(m, o) for m in ("llama", "qwen2") for o in OPTIONS] +
                         [(m, [f"--fm-quantize-weights=format={w}"] if w else []) for m in OTHERS for w in ("", "int4")] +
                         [pytest.param(m, [*o, "--fm-split-rows"], marks=needs_matrix_unit)
                          for m in ("llama", "long") for o in ([], ["--fm-quantize-weights=format=bf16"])] +
                         [pytest.param(m, ["--fm-set-kv-format=format=bf16", "--fm-tile-attention", *o],
                                       marks=needs_matrix_unit)
                          for m, o in (("llama", []), ("gemma3", []), ("wide", []), ("qwen3", []),
                                       ("llama", ["--fm-limit-kv=budget=40"]))])
def test_kernels_equal_the_interpreter(isthmus, bundles, tmp_path, model, options):
    """The same passes through the kernels and through the interpreter."""
    text = " ".join(options)
    weights = next((w for w in ("f16", "bf16", "int8", "int7", "int4") if f"weights=format={w}" in text), "f32")
    if "scales=row" in text:
        weights += "-row"
    kv = "f32" if "kv-format" not in text else text.partition("kv-format=format=")[2].split(" ")[0] or "f16"
    compile_options = ["--kv", kv, "--products", "matrix" if "split" in text or "tile" in text else "vector"]
    if "prune" in text:
        compile_options += ["--prune", "unstructured" if "unstructured" in text else "2:4"]
    if "budget" in text:
        compile_options += ["--kv-budget", text.split("budget=")[1].split()[0]]
    bundle = bundles(model, weights, *compile_options)
    ids = [(7 * i + 3) % 500 for i in range(70)]
    own = isthmus.logits(bundle, ids, tmp_path)
    folder = bundle.parent / model
    module = subprocess.run([BIN / "isthmus-translate", "--import-model", f"--model={folder}", "/dev/null"],
                            check=True, capture_output=True).stdout
    module = subprocess.run([BIN / "isthmus-opt", *options, "--canonicalize"], input=module, check=True,
                            capture_output=True).stdout
    raw = subprocess.run([BIN / "isthmus-translate", "--interpret", "--tokens=" + ",".join(map(str, ids))],
                         input=module, check=True, capture_output=True).stdout
    reference = np.frombuffer(raw, np.float32).reshape(len(ids), -1)
    scale = np.abs(reference).max()
    error = np.abs(own - reference)
    if weights in ("f32", "f16") and kv == "f32":
        assert error.max() <= 1e-5 * scale
    elif kv == "f16":
        # A key or value on the edge between two f16 values may round either way.
        assert error.max() <= 1e-3 * scale
        assert np.median(error) <= 1e-5 * scale
    else:
        # An activation, key or value on the edge between two int8 or bf16 values may round
        # either way, and from there on the difference travels. Rows that no such edge reached,
        # the first ones at least, are exact; the others stay near.
        bf16 = "bf16" in (kv, weights)
        exact = error.max(axis=1) <= 1e-5 * scale
        assert exact.sum() >= (8 if bf16 else 3), exact
        assert error.max() <= (8e-3 if bf16 or kv == "int8" else 5e-2) * scale
    # Where one token is clearly best, both choose it.
    top = np.sort(reference, axis=1)
    clear = top[:, -1] - top[:, -2] > 4 * error.max()
    assert clear.any() or weights != "f32"
    assert (own.argmax(1) == reference.argmax(1))[clear].all()


def test_passes_that_change_the_model_change_the_logits(isthmus, bundles, tmp_path):
    ids = [(7 * i + 3) % 500 for i in range(70)]
    plain = isthmus.logits(bundles("llama"), ids, tmp_path)
    for options in (["--prune", "2:4"], ["--kv-budget", "24"]):
        other = isthmus.logits(bundles("llama", "f32", *options), ids, tmp_path)
        assert np.abs(plain - other).max() > 1e-2
    # The budget does nothing while the text is shorter.
    limited = isthmus.logits(bundles("llama", "f32", "--kv-budget", "24"), ids, tmp_path)
    assert np.array_equal(plain[:20], limited[:20])
