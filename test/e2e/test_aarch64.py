"""The runtime and its kernels on aarch64, under qemu-user, beside the same on x86-64."""
import json
import os
import pathlib
import subprocess

import pytest
from PIL import Image

import tiny_encoders
from conftest import ROOT, Isthmus
from test_numerics import FORMATS, INT8_CACHE, VECTOR, model_of
from test_tokens import REFERENCES

PROMPT = [3, 200, 17, 42, 9]


@pytest.fixture(scope="module")
def emulated():
    """The command that runs the cross-built `isthmus` (scripts/build-aarch64.sh)."""
    program = pathlib.Path(os.environ.get("ISTHMUS_BUILD_AARCH64", ROOT / "build-aarch64")) / "bin" / "isthmus"
    assert program.exists(), "run scripts/build-aarch64.sh first"
    sysroot = subprocess.run([ROOT / "scripts" / "sysroot-aarch64.sh"], check=True, capture_output=True, text=True)
    return ["qemu-aarch64", "-L", sysroot.stdout.strip(), program]


@pytest.mark.parametrize("target", ["aarch64", "aarch64-dotprod", "aarch64-i8mm"])
@pytest.mark.parametrize("weights,options", [(weights, VECTOR) for weights in FORMATS] + [INT8_CACHE])
def test_same_tokens_and_logits(isthmus, bundles, emulated, tmp_path, weights, options, target):
    arm = Isthmus(emulated)
    bundle = bundles(model_of(weights), weights, *options, "--target", target)
    here = bundles(model_of(weights), weights, *options)
    tokens = arm.tokens(bundle, PROMPT, "--threads", 2, count=8)
    assert tokens == isthmus.tokens(here, PROMPT, count=8)
    ids = [(11 * i + 4) % 500 for i in range(75)]
    assert arm.logits(bundle, ids, tmp_path).tobytes() == isthmus.logits(here, ids, tmp_path).tobytes()


def test_equal_to_transformers(bundles, emulated):
    arm = Isthmus(emulated)
    case = REFERENCES["qwen2"][0]
    bundle = bundles("qwen2", "f32", "--target", "aarch64-dotprod")
    assert arm.tokens(bundle, case["prompt"], count=8) == case["tokens"][:8]


def test_refuses_a_bundle_for_another_processor(isthmus, bundles, emulated):
    message = Isthmus(emulated).fails("run", bundles("llama"), "--tokens", 1)
    assert "no kernels for this processor" in message and "x86_64" in message
    message = isthmus.fails("run", bundles("llama", "f32", "--target", "aarch64"), "--tokens", 1)
    assert "no kernels for this processor" in message and "aarch64" in message
    old = Isthmus([*emulated[:1], "-cpu", "cortex-a53", *emulated[1:]])
    message = old.fails("run", bundles("llama", "int4", "--target", "aarch64-dotprod"), "--tokens", 1)
    assert "this machine lacks asimddp" in message


def test_one_bundle_for_several_processors(isthmus, bundles, emulated, tmp_path):
    """Each machine loads the best of the libraries that it can run."""
    several = bundles("llama", "int4", "--target", "aarch64,aarch64-i8mm, x86-64-avx2,host")
    libraries = [library["target"] for library in json.loads(isthmus("inspect", several, "--json"))["kernels"]]
    assert libraries[-3:] == ["x86-64-avx2", "aarch64-i8mm", "aarch64"]
    expected = isthmus.logits(bundles("llama", "int4"), PROMPT, tmp_path).tobytes()
    old = Isthmus([*emulated[:1], "-cpu", "cortex-a53", *emulated[1:]])
    chosen = []
    for machine in (isthmus, Isthmus(emulated), old):
        assert machine.logits(several, PROMPT, tmp_path).tobytes() == expected
        chosen.append(json.loads(machine("bench", several, "-p", 4, "-n", 0, "-r", 1, "--json"))["target"])
    assert chosen == [libraries[0], "aarch64-i8mm", "aarch64"]


TOPOLOGY = """
devices:
  - {name: board, memory: 5300 kB, bandwidth: 6 GB/s, ops: 40 Gop/s, target: aarch64-dotprod}
  - {name: server, memory: 4600 kB, bandwidth: 20 GB/s, ops: 400 Gop/s, target: host}
links:
  - {between: [board, server], latency: 2 ms, bandwidth: 12.5 MB/s}
"""


@pytest.mark.parametrize("weights", ["f32", "int4"])
def test_an_arm_board_and_an_x86_server(isthmus, bundles, start, emulated, tmp_path, weights):
    """One bundle, two instruction sets, the tokens of one machine."""
    expected = isthmus.tokens(bundles("llama", weights), PROMPT)
    (tmp_path / "t.yaml").write_text(TOPOLOGY)
    bundle = tmp_path / "mixed.isth"
    model = bundles("llama").parent / "llama"
    isthmus("compile", model, "--weights", weights, "--context", 2048 if weights == "f32" else 4096, "--topology",
            tmp_path / "t.yaml", "-o", bundle)
    targets = {library["target"] for library in json.loads(isthmus("inspect", bundle, "--json"))["kernels"]}
    assert len(targets) == 2
    isthmus("cluster", "create", tmp_path / "cluster")
    for name in ("board", "server", "me"):
        isthmus("cluster", "add", tmp_path / "cluster", tmp_path / name)
    addresses = []
    for name, options in (("board", {"program": emulated}), ("server", {})):
        worker = start("worker", bundle, "--device", name, "--listen", "tls:127.0.0.1:0", "--cluster", tmp_path / name,
                       **options)
        addresses += ["--worker", worker.line.split()[-1]]
    assert isthmus.tokens(bundle, PROMPT, *addresses, "--cluster", tmp_path / "me") == expected


@pytest.mark.parametrize("name", ["sentence", "vit"])
@pytest.mark.parametrize("weights", ["f32", "int8"])
def test_encoders_give_the_same_bits(isthmus, emulated, tmp_path, name, weights):
    """Pictures are decoded and scaled there too."""
    folder = tiny_encoders.write_folder(tmp_path / name, name)
    Image.fromarray(tiny_encoders.image(90, 61)).save(tmp_path / "a.jpg")
    what = ("--image", tmp_path / "a.jpg") if name == "vit" else ("--text", "the cat sits over an isthmus")
    bits = []
    for program, target in ((isthmus, "host"), (Isthmus(emulated), "aarch64-dotprod")):
        bundle = tmp_path / f"{target}.isth"
        # (A matrix unit would give a picture other last bits.)
        isthmus("compile", folder, "--weights", weights, "--target", target, "--products", "vector", "-o", bundle)
        program("run", bundle, *what, "-o", tmp_path / f"{target}.npy")
        bits.append((tmp_path / f"{target}.npy").read_bytes())
    assert bits[0] == bits[1]
