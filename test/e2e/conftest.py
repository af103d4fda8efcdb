"""Fixtures: the built programs, a key store of their own, compiled tiny models."""
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ISTHMUS_BUILD", ROOT / "build")) / "bin"


def cpu_flags():
    return next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()


needs_matrix_unit = pytest.mark.skipif("amx_bf16" not in cpu_flags(), reason="this processor has no AMX with bf16, which --products matrix needs")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    os.environ["ISTHMUS_HOME"] = str(tmp_path_factory.mktemp("home"))


class Isthmus:
    """Runs commands; `fails` expects one clear message and a non-zero exit."""

    def __init__(self, program=(BIN / "isthmus",)):
        self.program = list(program)

    def run(self, args, timeout, env):
        return subprocess.run([*self.program, *map(str, args)], capture_output=True, text=True, errors="replace",
                              timeout=timeout, env={**os.environ, **(env or {})})

    def __call__(self, *args, timeout=120, env=None):
        done = self.run(args, timeout, env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *args, timeout=120, env=None):
        done = self.run(args, timeout, env)
        # A negative code is a crash.
        assert done.returncode > 0, (done.returncode, done.stdout, done.stderr)
        return done.stderr

    def tokens(self, bundle, ids, *args, count=24):
        out = self("run", bundle, "--tokens", ",".join(map(str, ids)), "--max-tokens", count, "--temperature", 0,
                   "--ignore-eos", "--json", *args)
        return json.loads(out)["tokens"]

    def logits(self, bundle, ids, folder, *args):
        import numpy as np
        path = pathlib.Path(folder) / "logits.f32"
        self("logits", bundle, "--tokens", ",".join(map(str, ids)), "-o", path, *args)
        return np.fromfile(path, np.float32).reshape(len(ids), -1)


@pytest.fixture(scope="session")
def isthmus():
    return Isthmus()


SPLIT = """
devices:
  - {name: board, memory: %d kB, bandwidth: 6 GB/s, ops: 40 Gop/s}
  - {name: server, memory: %d kB, bandwidth: 20 GB/s, ops: 400 Gop/s}
links:
  - {between: [board, server], latency: 2 ms, bandwidth: 12.5 MB/s}
"""

# Budgets that no weight format lets one device meet alone, at 2,048 positions.
BUDGETS = {"llama": (5300, 4600), "qwen2": (3750, 3750), "wide": (10500, 10500)}


@pytest.fixture(scope="session")
def bundles(tmp_path_factory, isthmus):
    """bundles(model, weights, split=False, *options): compiled once each; of weights "blocks"
    from a GGUF file with blocks of all kinds, which are kept."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {}

    def get(model, weights="f32", *options, split=False):
        key = (model, weights, split, options)
        if key not in made:
            source = folder / (f"{model}.gguf" if weights == "blocks" else model)
            if weights == "blocks" and not source.exists():
                tiny.write_gguf(source, model, tiny.mixed)
            if not source.exists():
                tiny.write_folder(source, model, shards=2 if model == "qwen2" else 1)
            out = folder / f"{len(made)}.isth"
            extra = ["--context", 512]
            if split:
                (folder / f"{model}.yaml").write_text(SPLIT % BUDGETS[model])
                # The cache of other weights is f16: as many bytes.
                extra = ["--context", 2048 if weights == "f32" else 4096, "--topology", folder / f"{model}.yaml"]
            isthmus("compile", source, "--weights", "file" if weights == "blocks" else weights, "-o", out, *extra,
                    *options)
            made[key] = out
        return made[key]
    return get


class Process:
    """A server or worker: waits for its first line, stops with the test."""

    def __init__(self, *args, env=None, program=(BIN / "isthmus",)):
        self.process = subprocess.Popen([*program, *map(str, args)], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        self.line = self.process.stdout.readline()
        assert self.line, self.process.stderr.read()

    def stop(self, kill=False):
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture
def start():
    running = []

    def run(*args, **kwargs):
        running.append(Process(*args, **kwargs))
        return running[-1]
    yield run
    for process in running:
        if process.process.poll() is None:
            process.stop(kill=True)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("did not happen in time")
