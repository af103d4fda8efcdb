"""Every GGUF format gives exactly what its dequantised values give."""
import subprocess

import numpy as np
import pytest

import tiny
from conftest import BIN

IDS = [(5 * i + 2) % 250 for i in range(20)]


@pytest.mark.parametrize("model,dtype", [("llama", "F32"), ("qwen2", "F32")] + [
    ("wide", d) for d in ("F16", "BF16", *tiny.BLOCKS)])
def test_gguf_equals_safetensors(isthmus, tmp_path, model, dtype):
    values = tiny.write_gguf(tmp_path / "m.gguf", model, dtype)
    tiny.write_folder(tmp_path / "hf", model, values)
    isthmus("compile", tmp_path / "m.gguf", "--weights", "f32", "-o", tmp_path / "a.isth")
    isthmus("compile", tmp_path / "hf", "--weights", "f32", "-o", tmp_path / "b.isth")
    a = isthmus.logits(tmp_path / "a.isth", IDS, tmp_path)
    b = isthmus.logits(tmp_path / "b.isth", IDS, tmp_path)
    assert np.isfinite(a).all() and np.abs(a).max() > 0
    assert np.array_equal(a, b)


def test_half_precision_safetensors(isthmus, tmp_path):
    halves = {k: v.astype(np.float16) for k, v in tiny.weights("llama").items()}
    tiny.write_folder(tmp_path / "f16", "llama", halves)
    tiny.write_folder(tmp_path / "f32", "llama", {k: v.astype(np.float32) for k, v in halves.items()})
    results = []
    for name in ("f16", "f32"):
        isthmus("compile", tmp_path / name, "--weights", "f32", "-o", tmp_path / f"{name}.isth")
        results.append(isthmus.logits(tmp_path / f"{name}.isth", IDS, tmp_path))
    assert np.array_equal(*results)


@pytest.mark.parametrize("dtype", [*tiny.BLOCKS, tiny.mixed, "F16", "BF16"])
def test_kept_as_the_file_has_them(isthmus, tmp_path, dtype):
    """Products with blocks as they are, and the interpreter with the values that they stand for."""
    file, bundle = tmp_path / "m.gguf", tmp_path / "m.isth"
    tiny.write_gguf(file, "wide", dtype)
    isthmus("compile", file, "--weights", "file", "--kv", "f32", "--products", "vector", "-o", bundle)
    assert bundle.stat().st_size < 1.3 * file.stat().st_size + (1 << 20)
    ids = [(7 * i + 3) % 500 for i in range(70)]
    own = isthmus.logits(bundle, ids, tmp_path)
    module = subprocess.run([BIN / "isthmus-translate", "--import-model", f"--model={file}", "/dev/null"], check=True,
                            capture_output=True).stdout
    module = subprocess.run([BIN / "isthmus-opt", "--fm-quantize-weights=format=file", "--canonicalize"], input=module,
                            check=True, capture_output=True).stdout
    raw = subprocess.run([BIN / "isthmus-translate", "--interpret", "--tokens=" + ",".join(map(str, ids))],
                         input=module, check=True, capture_output=True).stdout
    reference = np.frombuffer(raw, np.float32).reshape(len(ids), -1)
    scale, error = np.abs(reference).max(), np.abs(own - reference)
    if dtype == "F16":
        assert error.max() <= 1e-5 * scale
        return
    # As in test_tokens: what is on the edge of two integers may round either way.
    assert (error.max(axis=1) <= 1e-5 * scale).sum() >= (8 if dtype == "BF16" else 3)
    assert error.max() <= 5e-2 * scale


def test_what_is_computed_has_no_blocks_to_keep(isthmus, tmp_path):
    tiny.write_gguf(tmp_path / "m.gguf", "wide", "Q4_K")
    message = isthmus.fails("compile", tmp_path / "m.gguf", "--weights", "file", "--prune", "2:4", "-o",
                            tmp_path / "m.isth")
    assert "its values are computed" in message and "int8 or int4" in message
