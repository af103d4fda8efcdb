#!/usr/bin/env python3
"""Compile time and peak memory for ONNX models whose weights are large.

    benchmarks/onnx_memory.py [--gigabytes 2] [--folder DIR]

Makes a model of products with 128 MiB of weights each (zeros, in holes of a file beside
it: external data), compiles it and a graph of two nodes, and prints what the large one
takes above the small one, in its largest initializers. The bundle needs as much disk as the
weights. Exits non-zero above 1.5. Then a chain of 1,000 nodes, for time.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import onnx
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).resolve().parents[1]
ISTHMUS = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "bin" / "isthmus"
WIDTH, DEPTH = 4096, 8192
LARGEST = WIDTH * DEPTH * 4


def graph(nodes, weights):
    value = helper.make_tensor_value_info
    made = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, ["n", WIDTH])],
                             [value("y", TensorProto.FLOAT, ["n", WIDTH])], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def products(folder, count):
    """x W V W V ...: each weight has its own place in the file."""
    nodes, weights, last = [], [], "x"
    for i in range(count):
        weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT,
                             dims=[WIDTH, DEPTH] if i % 2 == 0 else [DEPTH, WIDTH], data_location=TensorProto.EXTERNAL)
        for key, text in (("location", "weights"), ("offset", i * LARGEST), ("length", LARGEST)):
            weight.external_data.add(key=key, value=str(text))
        weights.append(weight)
        result = "y" if i + 1 == count else f"v{i}"
        nodes.append(helper.make_node("MatMul", [last, weight.name], [result]))
        last = result
    with open(folder / "weights", "wb") as file:
        file.truncate(count * LARGEST)
    (folder / "m.onnx").write_bytes(graph(nodes, weights).SerializeToString())
    return folder / "m.onnx"


def chain(folder, count):
    names = ["x", *(f"v{i}" for i in range(count - 1)), "y"]
    ops = ["Relu", "Neg", "Exp", "Sigmoid", "Tanh"]
    nodes = [helper.make_node(ops[i % 5], [names[i]], [names[i + 1]]) for i in range(count)]
    (folder / "c.onnx").write_bytes(graph(nodes, []).SerializeToString())
    return folder / "c.onnx"


def compiled(model):
    out = subprocess.run([ISTHMUS, "compile", model, "-o", model.with_suffix(".isth"), "--json"], check=True,
                         capture_output=True, text=True).stdout
    model.with_suffix(".isth").unlink()
    return json.loads(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        base = compiled(chain(folder, 2))
        count = max(2, round(options.gigabytes * 1e9 / LARGEST) // 2 * 2)
        large = compiled(products(folder, count))
        thousand = compiled(chain(folder, 1000))
    above = (large["peak_resident_bytes"] - base["peak_resident_bytes"]) / LARGEST
    print(f"{count} initializers of {LARGEST / 1e6:.0f} MB: compiled in {large['seconds']:.1f} s, "
          f"{large['peak_resident_bytes'] / 1e6:.0f} MB, {above:.2f} initializers above the "
          f"{base['peak_resident_bytes'] / 1e6:.0f} MB of two nodes (at most 1.5)")
    print(f"1,000 nodes: {thousand['seconds']:.1f} s, {thousand['peak_resident_bytes'] / 1e6:.0f} MB")
    return above > 1.5


if __name__ == "__main__":
    sys.exit(main())
