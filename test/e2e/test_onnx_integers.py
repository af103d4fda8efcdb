"""Integer products of ONNX graphs by constant matrices: packed, and exact."""
import itertools
import json

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

# Fewer and more rows than a block of registers, inputs that fill no group of four, columns that fill no panel.
SHAPES = [(1, 4, 16), (3, 7, 5), (9, 64, 16), (8, 65, 33), (50, 131, 200), (13, 100, 136)]
TYPES = list(itertools.product(["uint8", "int8"], repeat=2))


def extremes(rng, dtype, *shape):
    """Values of the whole range, the ends often."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), values).astype(dtype)


def run(isthmus, folder, text, constants, inputs, *options):
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    onnx.save(model, folder / "m.onnx")
    isthmus("compile", folder / "m.onnx", "-o", folder / "m.isth", "--dump-ir", folder / "m.mlir", *options)
    args = []
    for name, value in inputs.items():
        np.save(folder / f"{name}.npy", value)
        args += ["--input", f"{name}={folder}/{name}.npy"]
    isthmus("run", folder / "m.isth", *args, "-o", folder / "out")
    return np.load(folder / "out/y.npy"), (folder / "m.mlir").read_text()


@pytest.mark.parametrize("target", ["host", "x86-64-avx2"])
@pytest.mark.parametrize("x_type,w_type", TYPES)
def test_exact(isthmus, tmp_path, x_type, w_type, target):
    """Sums are those of NumPy's int64, at the ends of the range too."""
    for i, (rows, inner, columns) in enumerate(SHAPES):
        rng = np.random.default_rng(i)
        x, w = extremes(rng, x_type, 2, rows, inner), extremes(rng, w_type, inner, columns)
        x_zero, w_zero = extremes(rng, x_type, 1)[0], extremes(rng, w_type, *(columns,) * (i % 2))
        text = f"""<ir_version: 9, opset_import: ["" : 20]>
            main ({x_type}[B, N, {inner}] x) => (int32[B, N, {columns}] y) {{ y = MatMulInteger(x, w, xz, wz) }}"""
        y, module = run(isthmus, tmp_path, text, dict(w=w, xz=np.array(x_zero), wz=np.array(w_zero)), dict(x=x),
                        "--target", target)
        assert "isthmus.PackedMatMulInteger" in module
        wanted = (x.astype(np.int64) - np.int64(x_zero)) @ (w.astype(np.int64) - w_zero.astype(np.int64))
        assert (y == wanted).all(), (rows, inner, columns)


@pytest.mark.parametrize("product", ["MatMul(fx, fw)", "Gemm(fx, fw, fb)", "Gemm<transB = 1>(fx, fw, fb)"])
@pytest.mark.parametrize("x_type,w_type", TYPES)
def test_quantised_operands(isthmus, tmp_path, x_type, w_type, product):
    """QDQ: the product is one of integers, and scaled as f32 says."""
    rows, inner, columns = 9, 40, 24
    rng = np.random.default_rng(1)
    turned, gemm = "transB" in product, "Gemm" in product
    x, w = extremes(rng, x_type, rows, inner), extremes(rng, w_type, inner, columns)
    constants = dict(w=w.T.copy() if turned else w, sx=np.float32(0.017), zx=extremes(rng, x_type, 1)[0],
                     sw=(rng.random(columns) * 0.1).astype(np.float32), zw=extremes(rng, w_type, columns),
                     fb=rng.standard_normal(columns).astype(np.float32))
    text = f"""<ir_version: 9, opset_import: ["" : 20]> main ({x_type}[N, {inner}] x) => (float[N, {columns}] y) {{
        fx = DequantizeLinear(x, sx, zx)
        fw = DequantizeLinear<axis = {0 if turned else 1}>(w, sw, zw)
        y = {product}
    }}"""
    y, module = run(isthmus, tmp_path, text, {k: np.array(v) for k, v in constants.items()}, dict(x=x))
    assert "PackedMatMulInteger" in module and "DequantizeLinear" not in module and '"MatMul"' not in module
    sums = (x.astype(np.int64) - np.int64(constants["zx"])) @ (w.astype(np.int64) - constants["zw"].astype(np.int64))
    wanted = sums.astype(np.float32) * (constants["sx"] * constants["sw"]) + (constants["fb"] if gemm else 0)
    assert (y == wanted).all()


def test_not_folded(isthmus, tmp_path):
    """Scales of rows of the weight, which no sum can be taken out of."""
    rng = np.random.default_rng(2)
    x, w = extremes(rng, "uint8", 4, 8), extremes(rng, "int8", 8, 8)
    text = """<ir_version: 9, opset_import: ["" : 20]> main (uint8[N, 8] x) => (float[N, 8] y) {
        fx = DequantizeLinear(x, sx)
        fw = DequantizeLinear<axis = 0>(w, sw)
        y = MatMul(fx, fw)
    }"""
    sw = np.arange(1, 9, dtype=np.float32) / 64
    y, module = run(isthmus, tmp_path, text, dict(w=w, sw=sw, sx=np.array(np.float32(0.5))), dict(x=x))
    assert "MatMulInteger" not in module
    assert np.allclose(y, (x.astype(np.float32) * np.float32(0.5)) @ (w * sw[:, None]), rtol=1e-5)


@pytest.mark.parametrize("target", ["host", "x86-64-avx2"])
@pytest.mark.parametrize("a_type,b_type", TYPES)
def test_two_inputs(isthmus, tmp_path, a_type, b_type, target):
    """Products of what is no constant, as attention has them: exact too, in stacks."""
    for rows, inner, columns in SHAPES:
        rng = np.random.default_rng(rows)
        a, b = extremes(rng, a_type, 2, 3, rows, inner), extremes(rng, b_type, 3, inner, columns)
        za, zb = extremes(rng, a_type, 1)[0], extremes(rng, b_type, 1)[0]
        text = f"""<ir_version: 9, opset_import: ["" : 20]>
            main ({a_type}[A, B, C, D] a, {b_type}[B, D, E] b) => (float[A, B, C, E] y) {{
            fa = DequantizeLinear(a, s, za)
            fb = DequantizeLinear(b, s, zb)
            y = MatMul(fa, fb)
        }}"""
        y, module = run(isthmus, tmp_path, text, dict(s=np.array(np.float32(0.25)), za=np.array(za), zb=np.array(zb)),
                        dict(a=a, b=b), "--target", target)
        assert '"MatMulInteger"' in module and "DequantizeLinear" not in module
        sums = (a.astype(np.int64) - np.int64(za)) @ (b.astype(np.int64) - np.int64(zb))
        assert (y == sums.astype(np.float32) * np.float32(0.0625)).all(), (rows, inner, columns)
