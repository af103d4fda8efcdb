"""Writes a small corpus for each fuzz target: make_seeds.py FOLDER."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnx.numpy_helper  # noqa: E402
import onnx.parser  # noqa: E402
import tiny  # noqa: E402
import tiny_encoders  # noqa: E402
from PIL import Image  # noqa: E402


def write_onnx(path):
    """A graph with an initializer that is cut out of the file, a body and a constant."""
    big = onnx.numpy_helper.from_array(np.zeros((16, 16), np.float32), "w")
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N, 16] x, bool c) => (float[N, 16] y) {
          shape = Constant <value = int64[2] {-1, 16}> ()
          p = MatMul(x, w)
          r = Reshape(p, shape)
          y = If (c) <then_branch = t () => (float[N, 16] a) { a = Relu(r) },
                      else_branch = e () => (float[N, 16] b) { b = Neg(r) }>
        }""")
    model.graph.initializer.append(big)
    onnx.save(model, path)


def main(folder):
    for name in ("GGUF", "Safetensors", "Bundle", "Tokenizer", "Vocabulary", "Image", "Npy", "Onnx"):
        (folder / name).mkdir(parents=True)
    tiny.write_gguf(folder / "full.gguf", "llama", "Q4_0")
    data = (folder / "full.gguf").read_bytes()
    (folder / "GGUF/model").write_bytes(data[:40000])
    (folder / "GGUF/short").write_bytes(data[:600])
    tiny.safetensors(folder / "Safetensors/model", {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float16)})
    (folder / "Bundle/empty").write_bytes(b"")
    (folder / "Vocabulary/slot").write_bytes(bytes([60, 0, 0, 0, 9]))
    (folder / "Vocabulary/cut").write_bytes(bytes([255, 255, 255, 255, 100]))
    for name, config in (("tiny", tiny.tokenizer_json()), ("wordpiece", tiny_encoders.wordpiece_json()),
                         ("clip", tiny_encoders.clip_json())):
        (folder / "Tokenizer" / name).write_bytes(json.dumps(config).encode() + b"\0the thing <|end|> [CLS] 123")
    picture = Image.fromarray(tiny_encoders.image(24, 17))
    picture.save(folder / "Image/rgb.png")
    picture.save(folder / "Image/rgb.jpg")
    picture.convert("P").save(folder / "Image/palette.png")
    picture.save(folder / "Image/progressive.jpg", progressive=True)
    np.save(folder / "Npy/floats.npy", np.zeros((2, 3), np.float32))
    np.save(folder / "Npy/integers.npy", np.arange(4))
    write_onnx(folder / "Onnx/graph.onnx")


main(pathlib.Path(sys.argv[1]))
