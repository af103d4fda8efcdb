"""docs/numerics.md: a request gives the same tokens whatever runs beside it."""
import concurrent.futures
import json
import urllib.request

import numpy as np
import pytest

import tiny
from conftest import cpu_flags, needs_matrix_unit

PROMPT = [(11 * i + 4) % 500 for i in range(75)]
FORMATS = ["f32", "f16", "bf16", "int8", "int8-row", "int7", "int7-row", "int4", "int4-row", "blocks"]
VECTOR = ["--products", "vector"]
# Products of f32 and bf16 weights, and attention beside all but f32 ones.
IN_TILES = [pytest.param(weights, ["--products", "matrix"], marks=needs_matrix_unit)
            for weights in ("f32", "bf16", "int4")]
INT8_CACHE = ("int4", [*VECTOR, "--kv", "int8"])


def model_of(weights):
    """Blocks of 256 inputs do not fit the smallest."""
    return "wide" if weights == "blocks" else "llama"


def ask(port, prompt, count):
    body = json.dumps(dict(prompt=prompt, max_tokens=count, temperature=0)).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body,
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["text"]


def compiled(isthmus, folder, weights):
    bundle = folder.parent / f"{weights}.isth"
    isthmus("compile", folder, "--weights", weights, "-o", bundle)
    return bundle


@pytest.mark.parametrize("weights,options", [(weights, VECTOR) for weights in FORMATS] + IN_TILES)
def test_threads_and_split(isthmus, bundles, tmp_path, weights, options):
    plain = bundles(model_of(weights), weights, *options)
    split = bundles(model_of(weights), weights, *options, split=True)
    plan = json.loads(isthmus("inspect", split, "--json"))["plans"][0]
    assert len(plan["stages"]) == 2
    expected = isthmus.tokens(plain, PROMPT, "--threads", 1)
    assert isthmus.tokens(plain, PROMPT, "--threads", 2) == expected
    assert isthmus.tokens(split, PROMPT, "--threads", 2) == expected
    # Stronger than tokens: the logits of one row, alone or among 64, bit for bit.
    whole = isthmus.logits(plain, PROMPT, tmp_path)
    other = isthmus.logits(split, PROMPT, tmp_path)
    assert whole.tobytes() == other.tobytes()


@pytest.mark.parametrize("model,weights,options", [
    (model_of(weights), weights, VECTOR + budget) for weights in FORMATS for budget in ([], ["--kv-budget", "300"])] + [
        ("llama", *INT8_CACHE)] + [pytest.param(model, own.values[0], own.values[1] + more, marks=needs_matrix_unit)
                                   for model, more in (("llama", []), ("long", []), ("gemma3", []),
                                                       ("llama3", ["--kv-budget", "300"])) for own in IN_TILES])
def test_rows_of_a_step(isthmus, bundles, tmp_path, model, weights, options):
    """However a text is cut into steps, small and large ones, the logits are the same bits."""
    bundle = bundles(model, weights, *options)
    ids = [(13 * i + 5) % 500 for i in range(530)]  # three partitions of attention
    whole = isthmus.logits(bundle, ids, tmp_path, "--rows", 512, "--context", 1024).tobytes()
    for rows, threads in ((1, 2), (3, 2), (4, 1), (7, 2), (19, 1), (37, 2), (64, 1)):
        cut = isthmus.logits(bundle, ids, tmp_path, "--rows", rows, "--threads", threads, "--context", 1024)
        assert cut.tobytes() == whole, (rows, threads)


@pytest.mark.parametrize("count", [8, 32])
@pytest.mark.parametrize("weights,options", [("f32", VECTOR), ("int8", VECTOR), ("int4", VECTOR), ("int4-row", VECTOR),
                                             *IN_TILES])
def test_in_a_batch(bundles, start, weights, options, count):
    server = start("serve", bundles("llama", weights, *options), "--port", 0, "--context", 8192)
    port = int(server.line.rsplit(":", 1)[1])
    alone = ask(port, PROMPT, 40)
    others = [[(i * k + 9) % 500 for i in range(20 + 30 * k % 200)] for k in range(1, count)]
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        together = list(pool.map(lambda p: ask(port, p, 40), [PROMPT] + others))
    assert together[0] == alone
    assert [ask(port, p, 40) for p in others] == together[1:]


@pytest.mark.parametrize("weights", ["int8", "int8-row", "int7", "int7-row"])
def test_bytes_at_their_limits(isthmus, tmp_path, weights):
    """All values of rows and weights are the largest: no instruction may saturate on the way."""
    tensors = {name: np.full_like(tensor, 0.01 if tensor.ndim == 2 else 1) for name, tensor in tiny.weights("llama").items()}
    tensors["model.embed_tokens.weight"][::2] = -0.01
    folder = tiny.write_folder(tmp_path / "m", "llama", tensors)
    own, exact = (isthmus.logits(compiled(isthmus, folder, w), PROMPT, tmp_path) for w in (weights, "f32"))
    assert np.abs(own - exact).max() < 5e-3 * np.abs(exact).max()


@pytest.mark.parametrize("blocks", tiny.BLOCKS)
def test_blocks_at_their_limits(isthmus, tmp_path, blocks):
    """The same of blocks: all their bits are set, in bytes with a sign the least value."""
    tensors = {name: np.ones_like(tensor) for name, tensor in tiny.weights("wide").items()}
    tensors["model.embed_tokens.weight"] = np.full_like(tensors["model.embed_tokens.weight"], 0.01)
    tensors["model.embed_tokens.weight"][::2] = -0.01
    file = tmp_path / "m.gguf"
    tiny.write_gguf(file, "wide", lambda name: "F32" if "embed" in name else blocks,
                    byte=0x80 if blocks == "Q8_0" else 0xFF, tensors=tensors)
    own, exact = (isthmus.logits(compiled(isthmus, file, w), PROMPT, tmp_path) for w in ("file", "f32"))
    assert np.abs(own - exact).max() < 5e-3 * np.abs(exact).max()


@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("products", ["vector", pytest.param("matrix", marks=needs_matrix_unit)])
def test_what_others_left_in_the_cache(isthmus, start, tmp_path, products, kv):
    """Pages that held no numbers: what is not written again counts for nothing."""
    tensors = tiny.weights("long")
    tensors["model.embed_tokens.weight"][7] = np.nan
    folder = tiny.write_folder(tmp_path / "m", "long", tensors)
    bundle = tmp_path / "m.isth"
    isthmus("compile", folder, "--weights", "f32", "--kv", kv, "--products", products, "-o", bundle)
    server = start("serve", bundle, "--port", 0, "--context", 256)
    port = int(server.line.rsplit(":", 1)[1])
    prompts = [[11 * i % 7 + 8 for i in range(count)] for count in (3, 33, 50)]
    expected = [ask(port, prompt, 20) for prompt in prompts]
    assert all(expected)
    for prompt, answer in zip(prompts, expected):
        ask(port, [7] * 200, 20)
        assert ask(port, prompt, 20) == answer


@pytest.mark.parametrize("weights,options", [(weights, VECTOR) for weights in FORMATS] + [INT8_CACHE])
def test_targets_agree(isthmus, bundles, tmp_path, weights, options):
    """Every x86-64 target that this machine can run gives the same bits, but in a matrix unit of floats."""
    flags = cpu_flags()
    targets = [t for t, flag in (("x86-64-avx2", "avx2"), ("x86-64-avx-vnni", "avx_vnni"),
                                 ("x86-64-avx512-vnni", "avx512_vnni"), ("x86-64-avx512-bf16", "avx512_bf16"),
                                 ("x86-64-amx", "amx_bf16")) if flag in flags]
    assert targets, "this machine has no AVX2"
    expected = isthmus.logits(bundles(model_of(weights), weights, *options), PROMPT, tmp_path).tobytes()
    for target in targets:
        other = bundles(model_of(weights), weights, *options, "--target", target)
        assert isthmus.logits(other, PROMPT, tmp_path).tobytes() == expected
