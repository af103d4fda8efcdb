"""Convolutions of ONNX graphs: each of the ways to compute them, against sums written out in NumPy."""
import itertools

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from test_onnx_integers import extremes


def under(tap, strides, dilations, counts):
    """What an element of the window lies on, in all its places: a slice of each spatial dimension."""
    return (slice(None), slice(None)) + tuple(slice(t * d, t * d + (count - 1) * s + 1, s)
                                              for t, s, d, count in zip(tap, strides, dilations, counts))


def convolve(x, w, strides, pads, dilations, group):
    """[n][channels][...] in the type of the operands: the elements of the windows one after another."""
    spatial = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(pads[d], pads[d + spatial]) for d in range(spatial)])
    sizes = [(x.shape[d + 2] - (w.shape[d + 2] - 1) * dilations[d] - 1) // strides[d] + 1 for d in range(spatial)]
    n, outputs, inputs = x.shape[0], w.shape[0] // group, w.shape[1]
    y = np.zeros((n, w.shape[0], *sizes), x.dtype)
    for tap in itertools.product(*map(range, w.shape[2:])):
        part = x[under(tap, strides, dilations, sizes)].reshape(n, group, inputs, -1)
        weights = w[(slice(None), slice(None)) + tap].reshape(group, outputs, inputs)
        y += np.einsum("goi,ngip->ngop", weights, part).reshape(y.shape)
    return y


def transpose(x, w, strides, pads, dilations, group):
    spatial = x.ndim - 2
    whole = [(x.shape[d + 2] - 1) * strides[d] + (w.shape[d + 2] - 1) * dilations[d] + 1 for d in range(spatial)]
    n, inputs, outputs = x.shape[0], w.shape[0] // group, w.shape[1]
    y = np.zeros((n, outputs * group, *whole), x.dtype)
    for tap in itertools.product(*map(range, w.shape[2:])):
        weights = w[(slice(None), slice(None)) + tap].reshape(group, inputs, outputs)
        part = np.einsum("gio,ngip->ngop", weights, x.reshape(n, group, inputs, -1))
        y[under(tap, strides, dilations, x.shape[2:])] += part.reshape(n, outputs * group, *x.shape[2:])
    return y[(slice(None), slice(None)) + tuple(slice(pads[d], whole[d] - pads[d + spatial]) for d in range(spatial))]


def run(isthmus, folder, nodes, constants, x, *options, result=onnx.TensorProto.FLOAT):
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = onnx.helper.make_graph(
        nodes, "main", [onnx.helper.make_tensor_value_info("x", kind, [1 if size == 1 else f"d{i}" for i, size in enumerate(x.shape)])],
        [onnx.helper.make_tensor_value_info("y", result, [f"o{i}" for i in range(x.ndim)])],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "m.onnx")
    isthmus("compile", folder / "m.onnx", "-o", folder / "m.isth", "--dump-ir", folder / "m.mlir", *options)
    np.save(folder / "x.npy", x)
    isthmus("run", folder / "m.isth", "--input", f"x={folder}/x.npy", "-o", folder / "out")
    return np.load(folder / "out/y.npy"), (folder / "m.mlir").read_text()


# Sizes of x; of the weights, channels of the result and of a group first; strides, pads, dilations, groups.
FORMS = {
    "pointwise": ((2, 20, 9, 15), (50, 20, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "many places and channels": ((1, 3, 20, 21), (61, 3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "strides": ((1, 5, 33, 70), (7, 5, 3, 2), (2, 2), (1, 0, 0, 2), (1, 1), 1),
    "dilated groups": ((1, 6, 13, 14), (4, 3, 2, 3), (1, 2), (0, 1, 2, 1), (2, 3), 2),
    "a line": ((2, 7, 300), (5, 7, 4), (3,), (2, 1), (1,), 1),
    "a column": ((1, 7, 300, 1), (5, 7, 4, 1), (3, 1), (2, 0, 1, 0), (1, 1), 1),
    "a body": ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), (1, 2, 1), (1, 0, 1, 0, 1, 1), (1, 1, 2), 1),
    "depthwise": ((2, 5, 18, 75), (5, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 5),
    "depthwise, strides": ((1, 6, 17, 83), (6, 1, 5, 5), (2, 2), (2, 2, 2, 2), (1, 1), 6),
    "depthwise, dilated": ((1, 3, 21, 50), (3, 1, 3, 2), (1, 3), (0, 4, 3, 0), (2, 4), 3),
    "depthwise, two of each": ((1, 4, 9, 9), (8, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    "depthwise, a line": ((1, 4, 130), (4, 1, 7), (1,), (6, 0), (1,), 4),
    "depthwise, nothing but padding": ((1, 2, 1, 1), (2, 1, 3, 3), (1, 1), (4, 4, 4, 4), (1, 1), 2),
}


def attributes(form):
    _, w, strides, pads, dilations, group = form
    return dict(kernel_shape=w[2:], strides=strides, pads=pads, dilations=dilations, group=group)


@pytest.mark.parametrize("target", ["host", "x86-64-avx2"])
@pytest.mark.parametrize("name", FORMS)
def test_floats(isthmus, tmp_path, name, target):
    form = FORMS[name]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(form[0]).astype(np.float32), rng.standard_normal(form[1]).astype(np.float32)
    bias = rng.standard_normal((1, len(w), *[1] * (x.ndim - 2))).astype(np.float32)
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["c"], **attributes(form)),
             onnx.helper.make_node("Add", ["c", "b"], ["y"])]
    y, module = run(isthmus, tmp_path, nodes, dict(w=w, b=bias), x, "--target", target)
    assert '"Add"' not in module  # it is the bias of the convolution
    wanted = convolve(x.astype(np.float64), w.astype(np.float64), *form[2:]) + bias
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("target", ["host", "x86-64-avx2"])
@pytest.mark.parametrize("name", FORMS)
def test_integers(isthmus, tmp_path, name, target):
    """Sums are those of int64, at the ends of the range too."""
    form = FORMS[name]
    rng = np.random.default_rng(1)
    x_type, w_type = rng.choice(["uint8", "int8"], 2)
    x, w = extremes(rng, x_type, *form[0]), extremes(rng, w_type, *form[1])
    x_zero, w_zero = extremes(rng, x_type, 1)[0], extremes(rng, w_type, len(w))
    nodes = [onnx.helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], **attributes(form))]
    y, module = run(isthmus, tmp_path, nodes, dict(w=w, xz=x_zero, wz=w_zero), x, "--target", target,
                    result=onnx.TensorProto.INT32)
    assert "isthmus.PackedConvInteger" in module
    shift = w_zero.astype(np.int64).reshape(-1, *[1] * (w.ndim - 1))
    assert (y == convolve(x.astype(np.int64) - np.int64(x_zero), w.astype(np.int64) - shift, *form[2:])).all()


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("name", ["strides", "dilated groups", "a line"])
def test_quantised(isthmus, tmp_path, name, single):
    """QDQ: the convolution is one of integers, and scaled as f32 says."""
    form = FORMS[name]
    rng = np.random.default_rng(2)
    x, w = extremes(rng, "uint8", *form[0]), extremes(rng, "int8", *form[1])
    sw = np.float32(0.03) if single else (rng.random(len(w)) * 0.1).astype(np.float32)
    constants = dict(w=w, sx=np.float32(0.017), zx=np.uint8(97), sw=sw, b=rng.standard_normal(len(w)).astype(np.float32))
    nodes = [onnx.helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["fx"]),
             onnx.helper.make_node("DequantizeLinear", ["w", "sw"], ["fw"], axis=0),
             onnx.helper.make_node("Conv", ["fx", "fw", "b"], ["y"], **attributes(form))]
    y, module = run(isthmus, tmp_path, nodes, constants, x)
    assert "isthmus.PackedConvInteger" in module and "DequantizeLinear" not in module
    sums = convolve(x.astype(np.int64) - 97, w.astype(np.int64), *form[2:])
    across = (-1, *[1] * (x.ndim - 2))
    scale = np.broadcast_to(np.float32(0.017) * sw, len(w)).reshape(across)
    assert (y == sums.astype(np.float32) * scale + constants["b"].reshape(across)).all()


def test_what_follows(isthmus, tmp_path):
    """An integer bias, a scale and a bias are the convolution's; what is as wide as the result is not."""
    form = FORMS["strides"]
    rng = np.random.default_rng(3)
    x, w = extremes(rng, "uint8", *form[0]), extremes(rng, "int8", *form[1])
    wide = convolve(x.astype(np.int64), w.astype(np.int64), *form[2:])
    constants = dict(w=w, a=rng.integers(-1000, 1000, (1, len(w), 1, 1)).astype(np.int32), s=np.float32(0.01),
                     r=rng.standard_normal(wide.shape).astype(np.float32))
    nodes = [onnx.helper.make_node("ConvInteger", ["x", "w"], ["c"], **attributes(form)),
             onnx.helper.make_node("Add", ["c", "a"], ["sum"]),
             onnx.helper.make_node("Cast", ["sum"], ["f"], to=onnx.TensorProto.FLOAT),
             onnx.helper.make_node("Mul", ["f", "s"], ["m"]),
             onnx.helper.make_node("Add", ["m", "r"], ["y"])]
    y, module = run(isthmus, tmp_path, nodes, constants, x)
    assert module.count('"Add"') == 1 and '"Cast"' not in module and '"Mul"' not in module
    assert (y == (wide + constants["a"]).astype(np.float32) * np.float32(0.01) + constants["r"]).all()


@pytest.mark.parametrize("name", ["pointwise", "strides", "dilated groups", "a line", "a body", "depthwise, strides"])
def test_transposed(isthmus, tmp_path, name):
    sizes, w_sizes, strides, pads, dilations, group = FORMS[name]
    rng = np.random.default_rng(4)
    x = rng.standard_normal(sizes).astype(np.float32)
    w = rng.standard_normal((sizes[1], w_sizes[1] + 2, *w_sizes[2:])).astype(np.float32)
    bias = rng.standard_normal(w.shape[1] * group).astype(np.float32)
    nodes = [onnx.helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes(FORMS[name]))]
    y, _ = run(isthmus, tmp_path, nodes, dict(w=w, b=bias), x)
    wanted = transpose(x.astype(np.float64), w.astype(np.float64), strides, pads, dilations, group)
    wanted += bias.reshape(-1, *[1] * (x.ndim - 2))
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
