#!/usr/bin/env python3
"""An ONNX graph beside onnxruntime, in stages, each of which gets onnxruntime's values.

    PEERS=DIR benchmarks/stages.py MODEL.onnx INPUTS.npz [--stages 24] [--noise 1e-5]

For graphs whose results cannot be compared as a whole: quantised networks that turn the
last bit of a number into another integer, layer after layer, and round in between to
what decides sizes. How far onnxruntime is from itself after `--noise` (a relative change
of the first layer norm's weights) is printed beside; DIR as in graphs.py.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[1]
ISTHMUS = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bin" / "isthmus"
PEERS = pathlib.Path(os.environ.get("PEERS", "peers"))
ENOUGH = 0.99  # a cosine at which quantised outputs agree, as in graphs.py

ORT = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [o.name for o in session.get_outputs()]
results = session.run(names, dict(np.load(sys.argv[2])))
np.savez(sys.argv[3], **{str(i): r for i, r in enumerate(results)})
"""


def run(*command):
    """What a command prints; RuntimeError with the last line of its complaint."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "failed")
    return done.stdout


def peer(model, inputs, folder):
    """onnxruntime's outputs of `model`, by name."""
    onnx.save(model, folder / "peer.onnx")
    np.savez(folder / "in.npz", **inputs)
    run(PEERS / "venv-ort/bin/python", "-c", ORT, folder / "peer.onnx", folder / "in.npz", folder / "out.npz")
    results = np.load(folder / "out.npz")
    return {o.name: results[str(i)] for i, o in enumerate(model.graph.output)}


def reads(node):
    """The values that a node, or one in its bodies, takes."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= reads(inner)
        names |= {o.name for o in attribute.g.output}
    return names - {""}


def cut(graph, count):
    """Lists of nodes, with what each takes from others before it and gives to those after it or to the caller."""
    nodes = [n for n in graph.node if n.op_type != "Constant"]
    size = -(-len(nodes) // count)
    parts = [nodes[i:i + size] for i in range(0, len(nodes), size)]
    asked = {o.name for o in graph.output}
    stages = []
    for part in reversed(parts):
        made = {o for n in part for o in n.output if o}
        taken = set().union(*map(reads, part)) - made
        stages.append((part, taken, sorted(made & asked)))
        asked |= taken
    return stages[::-1]


def typed(name, array):
    # With its sizes: the length of a vector may be the rank of what is reshaped by it.
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def closeness(ours, theirs):
    """Cosine of the angle between two arrays of numbers; 1 where both are the same."""
    if ours.shape != theirs.shape:
        return 0.0
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    if np.array_equal(a, b):
        return 1.0
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


class Comparison:
    """Parts of a model, each run by both on the values that onnxruntime gave to what comes before."""

    def __init__(self, model, folder):
        self.model, self.folder = model, folder
        self.fixed = {t.name: t for t in model.graph.initializer}
        self.constants = {n.output[0]: n for n in model.graph.node if n.op_type == "Constant"}

    def part(self, nodes, taken, made, values):
        """The nodes as a model; `values` has its inputs and the types of its outputs."""
        part = onnx.ModelProto()
        part.CopyFrom(self.model)
        part.graph.Clear()
        part.graph.name = "part"
        part.graph.node.extend([self.constants[n] for n in sorted(taken & set(self.constants))] + nodes)
        part.graph.initializer.extend(self.fixed[n] for n in sorted(taken & set(self.fixed)))
        part.graph.input.extend(typed(n, values[n]) for n in self.given(taken))
        part.graph.output.extend(typed(n, values[n]) for n in made)
        return part

    def given(self, taken):
        return sorted(taken - set(self.fixed) - set(self.constants))

    def split(self, model, values, count):
        """Cuts a model's graph; returns the stages, and the values with those of onnxruntime between them."""
        stages = [s for s in cut(model.graph, count) if s[2]]
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        for name in sorted(set().union(*(s[2] for s in stages)) - {o.name for o in model.graph.output}):
            whole.graph.output.append(onnx.ValueInfoProto(name=name))
        inputs = {i.name: values[i.name] for i in model.graph.input if i.name in values}
        return stages, {**values, **peer(whole, inputs, self.folder)}

    def closeness(self, nodes, taken, made, values):
        """The least cosine of the outputs. Where they differ though each half's agree, the halves count: then what
        comes out hangs on the last bits of a value between them, in onnxruntime too."""
        part = self.part(nodes, taken, made, values)
        onnx.save(part, self.folder / "part.onnx")
        run(ISTHMUS, "compile", self.folder / "part.onnx", "-o", self.folder / "part.isth", "--graph")
        command = [ISTHMUS, "run", self.folder / "part.isth", "-o", self.folder / "out"]
        for i, name in enumerate(self.given(taken)):
            np.save(self.folder / f"{i}.npy", values[name])
            command += ["--input", f"{name}={self.folder}/{i}.npy"]
        run(*command)
        ours = [np.load(self.folder / "out" / f"{n.replace('/', '_')}.npy") for n in made]
        least = min(closeness(o, values[n]) for o, n in zip(ours, made))
        if least >= ENOUGH or len(nodes) == 1:
            return least
        halves, values = self.split(part, values, 2)
        return min(self.closeness(*half, values) for half in halves)


def compare(path, inputs, count=24):
    """The least cosine of each stage between our outputs and onnxruntime's."""
    model = onnx.load(path)
    with tempfile.TemporaryDirectory() as name:
        comparison = Comparison(model, pathlib.Path(name))
        stages, values = comparison.split(model, inputs, count)
        for stage in stages:
            yield comparison.closeness(*stage, values)


def own_noise(path, inputs, noise):
    """How close onnxruntime's outputs stay to themselves when the first layer norm's weights change a little."""
    model = onnx.load(path)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        before = peer(model, inputs, folder)
        fixed = {t.name: t for t in model.graph.initializer}
        weights = next(fixed[n.input[1]] for n in model.graph.node if n.op_type == "LayerNormalization")
        array = onnx.numpy_helper.to_array(weights)
        factor = 1 + noise * np.random.default_rng(0).standard_normal(array.shape)
        weights.CopyFrom(onnx.numpy_helper.from_array((array * factor).astype(array.dtype), weights.name))
        after = peer(model, inputs, folder)
    return min(closeness(after[n], before[n]) for n in before)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("--stages", type=int, default=24)
    parser.add_argument("--noise", type=float, default=1e-5)
    options = parser.parse_args()
    inputs = dict(np.load(options.inputs))
    for number, cosine in enumerate(compare(options.model, inputs, options.stages)):
        print(f"stage {number:3}: cosine {cosine:.7f}", flush=True)
    print(f"onnxruntime and itself, after a change of {options.noise:g}: cosine "
          f"{own_noise(options.model, inputs, options.noise):.3f}")


if __name__ == "__main__":
    sys.exit(main())
