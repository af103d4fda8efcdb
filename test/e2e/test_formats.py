"""Every GGUF format gives exactly what its dequantised values give."""
import numpy as np
import pytest

import tiny

IDS = [(5 * i + 2) % 250 for i in range(20)]


@pytest.mark.parametrize("model,dtype", [("llama", "F32"), ("qwen2", "F32")] + [
    ("wide", d) for d in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q5_K", "Q6_K")])
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
