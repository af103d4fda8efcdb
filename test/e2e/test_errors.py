"""Bad input: one clear message, a non-zero exit, nothing half-written."""
import json
import random
import shutil

import numpy as np
import pytest

import tiny


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    tiny.write_gguf(path, "llama", "F32")
    return path


def compile_fails(isthmus, model, folder, *options):
    out = folder / "out.isth"
    message = isthmus.fails("compile", model, "-o", out, *options)
    assert message.strip().splitlines()[-1].startswith("isthmus: error: "), message
    assert not list(folder.glob("out.isth*"))  # no bundle, no partial one
    return message


def test_truncated_gguf(isthmus, gguf, tmp_path):
    data = gguf.read_bytes()
    for size in (0, 3, 4, 20, 200, 5000, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.gguf").write_bytes(data[:size])
        compile_fails(isthmus, tmp_path / "cut.gguf", tmp_path)


def test_random_damage_to_a_gguf_header(isthmus, gguf, tmp_path):
    data = gguf.read_bytes()
    header = data.index(b"token_embd.weight")
    generator = random.Random(5)
    for _ in range(40):
        broken = bytearray(data)
        for _ in range(8):
            broken[generator.randrange(header + 400)] = generator.randrange(256)
        (tmp_path / "broken.gguf").write_bytes(broken)
        import subprocess
        from conftest import BIN
        done = subprocess.run([BIN / "isthmus", "compile", tmp_path / "broken.gguf", "-o", tmp_path / "out.isth"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1), done.stderr  # harmless damage may pass
        if done.returncode == 1:
            assert "isthmus: error: " in done.stderr
            assert not list(tmp_path.glob("out.isth*"))


def test_what_a_checkpoint_lacks_or_should_not_have(isthmus, tmp_path):
    tensors = tiny.weights("llama")
    missing = {k: v for k, v in tensors.items() if "layers.1.mlp.up_proj" not in k}
    tiny.write_folder(tmp_path / "a", "llama", missing)
    assert "'model.layers.1.mlp.up_proj.weight' is missing" in compile_fails(isthmus, tmp_path / "a", tmp_path)
    tiny.write_folder(tmp_path / "b", "llama", tensors | {"model.layers.0.extra.weight": tensors["model.norm.weight"]})
    assert "'model.layers.0.extra.weight' is not part of" in compile_fails(isthmus, tmp_path / "b", tmp_path)
    wrong = dict(tensors)
    wrong["model.norm.weight"] = wrong["model.norm.weight"][:32]
    tiny.write_folder(tmp_path / "c", "llama", wrong)
    assert "has shape [32]; the configuration says [64]" in compile_fails(isthmus, tmp_path / "c", tmp_path)
    tiny.write_folder(tmp_path / "d", "llama")
    config = json.loads((tmp_path / "d/config.json").read_text())
    (tmp_path / "d/config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    assert "'mamba' is not supported" in compile_fails(isthmus, tmp_path / "d", tmp_path)
    assert "no such file" in compile_fails(isthmus, tmp_path / "nothing", tmp_path)


def with_settings(folder, name, **changed):
    tiny.write_folder(folder, name)
    (folder / "config.json").write_text(json.dumps(tiny.CONFIGS[name] | changed))
    return folder


@pytest.mark.parametrize("model,setting,value,message", [
    ("llama", "hidden_act", "gelu", "silu is"), ("llama", "model_type", "t5", "known: llama"),
    ("llama", "rope_scaling", dict(rope_type="yarn", factor=4.0), "linear and llama3 are"),
    ("llama", "hidden_size", "wide", "wrong type"), ("llama", "num_attention_heads", 0, "expected 1 to"),
    ("llama3", "rope_parameters", dict(rope_type="linear", factor=2.0), "one scaling is"),
    ("gpt2", "activation_function", "relu", "gelu_new is"), ("gemma3", "hidden_activation", "silu", "gelu_pytorch_tanh is"),
    ("gemma3", "layer_types", ["full_attention"], "a type for each layer"),
    ("gemma3", "layer_types", ["full_attention", "chunked", "full_attention"], "sliding_attention and full_attention"),
    ("gemma3", "attn_logit_softcapping", 50.0, "Gemma 3 has none")])
def test_settings_that_count_are_refused(isthmus, tmp_path, model, setting, value, message):
    folder = with_settings(tmp_path / "m", model, **{setting: value})
    error = compile_fails(isthmus, folder, tmp_path)
    assert message in error and "config.json" in error and (setting == "model_type" or setting in error), error


def test_hostile_settings(isthmus, tmp_path):
    folder = with_settings(tmp_path / "m", "llama")
    deep = '{"a":' * 50_000 + "1" + "}" * 50_000
    (folder / "config.json").write_text(json.dumps(tiny.CONFIGS["llama"])[:-1] + ', "deep": ' + deep + "}")
    assert "nested deeper" in compile_fails(isthmus, folder, tmp_path)


def test_a_model_without_its_tokenizer(isthmus, tmp_path):
    """A tokenizer that is not supported costs the text, not the model, and is said."""
    tiny.write_gguf(tmp_path / "m.gguf", "llama")
    (tmp_path / "m.gguf").write_bytes((tmp_path / "m.gguf").read_bytes().replace(b"gpt2", b"rwkv"))
    done = isthmus.run(["compile", tmp_path / "m.gguf", "-o", tmp_path / "m.isth"], 60, None)
    assert done.returncode == 0 and "takes token ids only" in done.stderr
    assert len(isthmus.tokens(tmp_path / "m.isth", [3, 4])) == 24
    assert "give ids with --tokens" in isthmus.fails("run", tmp_path / "m.isth", "--prompt", "a")


@pytest.mark.parametrize("change,words", [
    (lambda t: t["model"].update(byte_fallback=True), "<0x00> is no token"),
    (lambda t: t["model"].update(type="Unigram"), "model 'Unigram' is not supported"),
    (lambda t: t.update(normalizer=dict(type="Precompiled")), "normalizer 'Precompiled'"),
    (lambda t: t.update(pre_tokenizer=dict(type="Metaspace")), "pre-tokenizer 'Metaspace'")])
def test_tokenizers_that_are_not_supported(isthmus, tmp_path, change, words):
    """Said by the compiler, not by whoever opens the bundle."""
    folder = with_settings(tmp_path / "m", "llama")
    tokenizer = tiny.tokenizer_json()
    change(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert words in compile_fails(isthmus, folder, tmp_path)


def test_int8_cache_of_large_heads(isthmus, tmp_path):
    folder = with_settings(tmp_path / "m", "llama", head_dim=544, num_attention_heads=1, num_key_value_heads=1)
    shapes = tiny.shapes(json.loads((folder / "config.json").read_text()))
    tiny.safetensors(folder / "model.safetensors", {n: np.ones(s, np.float32) for n, s in shapes.items()})
    assert "--kv bf16" in compile_fails(isthmus, folder, tmp_path, "--kv", "int8")


@pytest.mark.parametrize("options,words", [
    (["--weights", "f16"], "add --weights bf16"),
    (["--weights", "int4", "--kv", "int8"], "or --kv bf16"),
    (["--weights", "f32", "--target", "x86-64-avx2"], "has no matrix unit of bf16")])
def test_products_in_a_matrix_unit(isthmus, tmp_path, options, words):
    """Asked for, they are not left out silently."""
    folder = tiny.write_folder(tmp_path / "m", "llama")
    assert words in compile_fails(isthmus, folder, tmp_path, "--products", "matrix", *options)


def test_topologies(isthmus, gguf, tmp_path):
    def topology(text):
        (tmp_path / "t.yaml").write_text(text)
        return compile_fails(isthmus, gguf, tmp_path, "--topology", tmp_path / "t.yaml")
    device = "{name: a, memory: %s, bandwidth: 1 GB/s, ops: 1 Gop/s}"
    small = topology("devices:\n - " + device % "1 MB")
    assert "does not fit the topology" in small and "MB are missing" in small and "'a'" in small
    assert "t.yaml:2" in topology("devices:\n - " + device % "lots")
    assert "unknown key 'speed'" in topology("speed: 3\ndevices:\n - " + device % "1 GB")
    assert "no device named 'b'" in topology(
        "devices:\n - " + device % "1 GB" + "\nlinks:\n - {between: [a, b], latency: 1 ms, bandwidth: 1 MB/s}")
    assert "unknown target 'z80'" in topology(
        "devices:\n - {name: a, memory: 1 GB, bandwidth: 1 GB/s, ops: 1 Gop/s, target: z80}")
    topology("devices: [")
    message = compile_fails(isthmus, gguf, tmp_path, "--target", "host, z80")
    assert "unknown target 'z80'" in message and "aarch64-i8mm" in message


def test_changed_bytes_in_a_bundle(isthmus, bundles, tmp_path):
    original = bundles("llama", "int8").read_bytes()
    info = json.loads(isthmus("inspect", bundles("llama", "int8"), "--json"))
    path = tmp_path / "changed.isth"
    sizes = {b["name"]: b["bytes"] for b in info["blobs"]}
    weights = 4096 + -(-next(v for k, v in sizes.items() if k.startswith("kernels/")) // 4096) * 4096
    for name, at in (("signature", 90), ("kernels/", 4096 + 700), ("'weights'", weights + 5000),
                     ("signature", len(original) - 10)):
        changed = bytearray(original)
        changed[at] ^= 4
        path.write_bytes(changed)
        message = isthmus.fails("run", path, "--tokens", "1,2")
        assert name in message and "changed.isth" in message
    path.write_bytes(original[:-5])
    assert "truncated" in isthmus.fails("run", path, "--tokens", "1,2")
    path.write_bytes(b"x" * 5000)
    assert "not a bundle" in isthmus.fails("run", path, "--tokens", "1,2")


def test_foreign_bundles_need_trust(isthmus, bundles, tmp_path):
    env = {"ISTHMUS_HOME": str(tmp_path / "stranger")}
    bundle = shutil.copy(bundles("llama", "int8"), tmp_path / "foreign.isth")
    message = isthmus.fails("run", bundle, "--tokens", "1,2", env=env)
    assert "isthmus trust" in message
    isthmus("trust", bundle, env=env)
    isthmus("run", bundle, "--tokens", "1,2", "--max-tokens", 2, env=env)


def test_kernels_for_another_processor(isthmus, bundles):
    message = isthmus.fails("run", bundles("llama", "int8", "--target", "aarch64"), "--tokens", "1,2")
    assert "no kernels for this processor" in message and "aarch64" in message


def test_prompts_that_cannot_run(isthmus, bundles):
    bundle = bundles("llama", "int8")
    assert "outside the vocabulary" in isthmus.fails("run", bundle, "--tokens", "1,512")
    assert "empty" in isthmus.fails("run", bundle, "--prompt", "")
    many = ",".join(["5"] * 1100)
    assert "context is 1024" in isthmus.fails("run", bundle, "--tokens", many)
    assert "raise --context" in isthmus.fails("run", bundle, "--tokens", ",".join(["5"] * 600))


def test_nothing_of_the_compiler_in_the_runtime():
    import subprocess
    from conftest import BIN
    libraries = subprocess.run(["ldd", BIN / "isthmus"], capture_output=True, text=True, check=True).stdout
    assert "LLVM" not in libraries and "MLIR" not in libraries and "python" not in libraries
