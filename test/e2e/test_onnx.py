"""ONNX: the backend's node tests, and graphs on the command line."""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx.reference
import pytest

from conftest import BIN, ROOT

sys.path.insert(0, str(ROOT / "test/onnx"))
import report  # noqa: E402


@pytest.fixture(scope="session")
def conformance(tmp_path_factory):
    """The folder of cases and what became of each, with and without sizes."""
    folder = tmp_path_factory.mktemp("onnx")
    subprocess.run([sys.executable, ROOT / "test/onnx/write_cases.py", folder / "cases"], check=True)
    done = subprocess.run([BIN / "onnx-conformance", folder / "cases", "--jobs", str(os.cpu_count())],
                          capture_output=True, text=True, check=True, timeout=1500)
    return folder / "cases", [json.loads(line) for line in done.stdout.splitlines()]


def test_conformance(conformance):
    """Just what the list says fails: what starts to pass must be taken off it."""
    _, results = conformance
    assert len(results) == 2 * 1884
    failures = {f"{r['case']} {r['mode']}": r["message"] for r in results if not r["passed"]}
    expected = set()
    for line in (ROOT / "test/onnx/expected_failures.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            expected.add(line)
    unexpected = {case: message for case, message in failures.items() if case not in expected}
    assert not unexpected
    assert not expected - set(failures), "these pass now: take them off the list"


def test_operators_page(conformance):
    folder, results = conformance
    assert (ROOT / "docs/onnx-operators.md").read_text() == report.report(results, folder)


MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[N, 16] x, int64[2] sizes) => (float[A, B] y, bool[N, 16] positive) {
  p = MatMul(x, w)
  s = Softmax<axis = -1>(p)
  y = Reshape(s, sizes)
  zero = Constant<value = float {0}>()
  positive = Greater(x, zero)
}"""


@pytest.fixture
def model():
    weight = np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)
    parsed = onnx.parser.parse_model(MODEL)
    parsed.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return parsed, weight


def test_run(isthmus, model, tmp_path):
    parsed, weight = model
    onnx.save(parsed, tmp_path / "m.onnx")
    isthmus("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.isth")
    x = np.random.default_rng(2).standard_normal((6, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "sizes.npy", np.array([3, -1]))
    inputs = ["--input", f"x={tmp_path}/x.npy", "--input", f"sizes={tmp_path}/sizes.npy"]
    isthmus("run", tmp_path / "m.isth", *inputs, "-o", tmp_path / "out")
    logits = x @ weight
    wanted = np.exp(logits - logits.max(-1, keepdims=True))
    wanted /= wanted.sum(-1, keepdims=True)
    assert np.allclose(np.load(tmp_path / "out/y.npy"), wanted.reshape(3, -1), atol=1e-6)
    assert (np.load(tmp_path / "out/positive.npy") == (x > 0)).all()
    printed = json.loads(isthmus("run", tmp_path / "m.isth", *inputs, "--json", "--threads", "1"))
    assert printed["y"]["shape"] == [3, 32] and printed["positive"]["type"] == "bool"
    described = isthmus("inspect", tmp_path / "m.isth")
    assert "x: float32 [?, 16]" in described and "positive: bool [?, 16]" in described
    timed = json.loads(isthmus("bench", tmp_path / "m.isth", "--shape", "x=6,16", *inputs[2:], "--profile", "--json"))
    assert timed["seconds"] > 0 and {"operator", "nodes", "seconds"} == set(timed["profile"][0])
    assert {entry["operator"] for entry in timed["profile"]} == {"isthmus.PackedMatMul", "Softmax", "Reshape", "Greater"}


def test_errors(isthmus, model, tmp_path):
    parsed, _ = model
    onnx.save(parsed, tmp_path / "m.onnx")
    isthmus("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.isth")
    np.save(tmp_path / "x.npy", np.zeros((6, 15), np.float32))
    np.save(tmp_path / "sizes.npy", np.array([5, -1]))
    sizes = ["--input", f"sizes={tmp_path}/sizes.npy"]
    assert "--input sizes=FILE.npy" in isthmus.fails("run", tmp_path / "m.isth", "--input", f"x={tmp_path}/x.npy")
    assert "'x' must be float32 [?, 16]" in isthmus.fails("run", tmp_path / "m.isth", "--input", f"x={tmp_path}/x.npy", *sizes)
    np.save(tmp_path / "x.npy", np.zeros((6, 16), np.float32))
    message = isthmus.fails("run", tmp_path / "m.isth", "--input", f"x={tmp_path}/x.npy", *sizes)
    assert "Reshape" in message and "96" in message
    assert "is not NAME=" in isthmus.fails("run", tmp_path / "m.isth", "--input", f"z={tmp_path}/x.npy")
    # Everything that cannot be run is listed.
    strange = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 17, "far.away" : 1]>
        main (float[N] x) => (float[N] y) {
          a = far.away.First(x)
          b = Relu(a)
          y = far.away.Second(b)
        }""")
    onnx.save(strange, tmp_path / "strange.onnx")
    message = isthmus.fails("compile", tmp_path / "strange.onnx", "-o", tmp_path / "s.isth")
    assert "far.away.First" in message and "far.away.Second" in message and "opset 28" in message
    (tmp_path / "broken.onnx").write_bytes(b"\x3a\xff\xff\xff\xff\x0f")
    assert "at byte" in isthmus.fails("compile", tmp_path / "broken.onnx", "-o", tmp_path / "s.isth")


def with_external_data(model, folder, location):
    """Says that the weight's values are in `location`."""
    parsed, _ = model
    weight = parsed.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    del weight.external_data[:]
    for key, value in (("location", location), ("offset", "0"), ("length", "1024")):
        weight.external_data.add(key=key, value=value)
    (folder / "m.onnx").write_bytes(parsed.SerializeToString())


def test_external_data(isthmus, model, tmp_path):
    """It is read from the model's folder, and from nowhere else."""
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4096))
    (folder / "data").write_bytes(bytes(1024))
    compile_it = ("compile", folder / "m.onnx", "-o", tmp_path / "m.isth")
    with_external_data(model, folder, "data")
    isthmus(*compile_it)
    os.symlink(secret, folder / "link")
    os.link(secret, folder / "hard")
    for location in ("../secret", str(secret), "link", "hard", "missing", "."):
        with_external_data(model, folder, location)
        assert "w" in isthmus.fails(*compile_it)
    # Longer than the file.
    (folder / "data").write_bytes(bytes(1000))
    with_external_data(model, folder, "data")
    assert "1024 bytes" in isthmus.fails(*compile_it)


@pytest.mark.parametrize("node", [
    "y = Transpose<perm = [0, 7]>(x)", "y = Transpose<perm = [0]>(x)", "y = Concat<axis = 9>(x, x)",
    "y = Softmax<axis = 5>(x)", 'y = Einsum<equation = "ijk->i">(x)', "y = Flatten<axis = 9>(x)", "y = Conv(x, x)",
    "y = LSTM<hidden_size = 4>(x, x, x)", "y = Gather<axis = -7>(x, x)", "y = DepthToSpace<blocksize = 0>(x)",
    "y = Split<axis = 3>(x)", "y = TopK<axis = 4>(x, x)", "y = GatherND<batch_dims = 9>(x, x)", "y = GatherND<batch_dims = -1>(x, x)",
    "y = GatherND(x, x)", "y = MaxPool(x)",
])
def test_attributes_that_do_not_fit(isthmus, tmp_path, node):
    """Files are not to be believed: an error, no crash, and nothing that compiles."""
    kind = "int64" if "Gather" in node else "float"
    text = f"""<ir_version: 9, opset_import: ["" : 20]> main ({kind}[4, 4] x) => ({kind}[A, B] y) {{ {node} }}"""
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    isthmus.fails("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.isth")


def test_own_domain(isthmus, tmp_path):
    """What passes make fits what they found; a file may not write it."""
    text = """<ir_version: 9, opset_import: ["" : 20, "isthmus" : 1]> main (float[4, 4] x) => (float[4, 4096] y) {
        y = isthmus.PackedMatMul<rows = 4, columns = 4096>(x, x)
    }"""
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert "the compiler's own" in isthmus.fails("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.isth")


@pytest.mark.parametrize("kind, node, value", [
    ("float[M]", "y = Resize<coordinate_transformation_mode = \"asymmetric\">(x, none, s)", np.float32([2])),
    ("int64[M]", "y = Resize<coordinate_transformation_mode = \"asymmetric\">(x, none, none, s)", np.array([8])),
    ("float[M]", "depth = Constant<value = int64 {5}>() y = OneHot<axis = -1>(x, depth, s)", np.float32([7])),
])
def test_inputs_that_are_too_short(isthmus, tmp_path, kind, node, value):
    """Lengths that are known only when a node runs are counted before anything is read."""
    text = f"""<ir_version: 9, opset_import: ["" : 20]> main (float[4, 4] x, {kind} s) => (float[A, B] y) {{ {node} }}"""
    text = text.replace("none", '').replace("[A, B]", "[A, B, C]" if "OneHot" in node else "[A, B]")
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    isthmus("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.isth")
    np.save(tmp_path / "x.npy", np.ones((4, 4), np.float32))
    run = ("run", tmp_path / "m.isth", "--input", f"x={tmp_path}/x.npy", "--input", f"s={tmp_path}/s.npy")
    np.save(tmp_path / "s.npy", value)
    assert "sizes" in isthmus.fails(*run)
    np.save(tmp_path / "s.npy", np.repeat(value, 2))
    isthmus(*run, "-o", tmp_path / "out")


SQUEEZED = """
<ir_version: 9, opset_import: ["" : 20]>
main (float[A, B, C] x) => (RESULTS) {
  last = Constant<value_ints = [-1]>()
  one = Constant<value_ints = [1]>()
  sizes = Shape(x)
  size = Gather(sizes, last)
  single = Equal(size, one)
  y = If(single) <then_branch = squeezed () => (float[P, Q] z) { z = Squeeze(x, last) },
                  else_branch = whole () => (float[P, Q, R] z) { z = Identity(x) }>
  NODES
}"""


def compile_squeezed(isthmus, folder, results, nodes):
    model = onnx.parser.parse_model(SQUEEZED.replace("RESULTS", results).replace("NODES", nodes))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    isthmus("compile", folder / "m.onnx", "-o", folder / "m.isth")
    return model


def test_ranks_of_branches(isthmus, tmp_path):
    """What follows branches of two ranks is compiled for both."""
    model = compile_squeezed(isthmus, tmp_path, "int64[1] rank, float total, float[A, B, C] twice", """
        ysizes = Shape(y)  rank = Shape(ysizes)
        other = Abs(x)
        zero = Constant<value_ints = [0]>()
        again = If(single) <then_branch = deep () => (float[P] w) { w = ReduceSum<keepdims = 0>(y, zero) },
                            else_branch = flat () => (float[P] w) {
                              front = Constant<value_ints = [0, 1]>() w = ReduceMax<keepdims = 0>(y, front) }>
        total = ReduceSum<keepdims = 0>(again)
        twice = Add(other, x)""")
    reference = onnx.reference.ReferenceEvaluator(model)
    for sizes in ((2, 3, 1), (2, 3, 4)):
        x = np.random.default_rng(0).standard_normal(sizes).astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        isthmus("run", tmp_path / "m.isth", "--input", f"x={tmp_path}/x.npy", "-o", tmp_path / "out")
        for name, wanted in zip(("rank", "total", "twice"), reference.run(None, {"x": x})):
            np.testing.assert_allclose(np.load(tmp_path / f"out/{name}.npy"), wanted, rtol=1e-6)


def test_branch_that_cannot_go_on(isthmus, tmp_path):
    """A recurrent layer takes three dimensions: the branch of four ends with that, the other runs."""
    model = compile_squeezed(isthmus, tmp_path, "float[S, D, B, H] states", """
        front = Constant<value_ints = [0]>()
        ws = Constant<value_ints = [1, 2, 3]>()  w = ConstantOfShape<value = float[1] {0.5}>(ws)
        rs = Constant<value_ints = [1, 2, 2]>()  r = ConstantOfShape<value = float[1] {0.25}>(rs)
        steps = Unsqueeze(y, front)
        states, last_state = RNN<hidden_size = 2>(steps, w, r)""")
    x = np.random.default_rng(0).standard_normal((2, 3, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    run = ("run", tmp_path / "m.isth", "--input", f"x={tmp_path}/x.npy")
    isthmus(*run, "-o", tmp_path / "out")
    wanted = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(np.load(tmp_path / "out/states.npy"), wanted, rtol=1e-5)
    np.save(tmp_path / "x.npy", np.ones((2, 3, 2), np.float32))
    assert "has 4 dimensions and needs three" in isthmus.fails(*run)


FUNCTIONS = {
    "Sin": (np.sin, -1e4, 1e4), "Cos": (np.cos, -1e4, 1e4), "Tan": (np.tan, -1e3, 1e3), "Asin": (np.arcsin, -1, 1),
    "Acos": (np.arccos, -1, 1), "Atan": (np.arctan, -50, 50), "Exp": (np.exp, -80, 80), "Log": (np.log, 1e-6, 1e6),
    "Tanh": (np.tanh, -9, 9), "Sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -30, 30), "Sqrt": (np.sqrt, 0, 1e6),
    "Softplus": (lambda x: np.logaddexp(x, 0), -30, 30), "Sinh": (np.sinh, -20, 20), "Cosh": (np.cosh, -20, 20),
}


@pytest.mark.parametrize("kind, digits", [("float", 6e-7), ("double", 2e-12)])
def test_functions(isthmus, tmp_path, kind, digits):
    """Functions of numbers, within a few units of the last place over the ranges that models use."""
    inputs = ", ".join(f"{kind}[N] {op}_x" for op in FUNCTIONS)
    outputs = ", ".join(f"{kind}[N] {op}_y" for op in FUNCTIONS)
    nodes = " ".join(f"{op}_y = {op}({op}_x)" for op in FUNCTIONS)
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> main ({inputs}) => ({outputs}) {{ {nodes} }}')
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    isthmus("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.isth")
    given, wanted = [], {}
    for op, (function, low, high) in FUNCTIONS.items():
        rng = np.random.default_rng(0)
        x = np.concatenate([rng.uniform(low, high, 4000), rng.uniform(max(low, -1), min(high, 1), 4000)])
        x = x.astype(np.float32).astype(kind.replace("float", "float32"))
        np.save(tmp_path / f"{op}.npy", x)
        given += ["--input", f"{op}_x={tmp_path}/{op}.npy"]
        wanted[op] = function(x.astype(np.float64))
    isthmus("run", tmp_path / "m.isth", *given, "-o", tmp_path / "out")
    for op, expected in wanted.items():
        np.testing.assert_allclose(np.load(tmp_path / f"out/{op}_y.npy"), expected, rtol=digits, atol=0, err_msg=op)


def test_constants_of_constants(isthmus, tmp_path):
    """Each of which takes the one before twice: they are looked at once, not 2^64 times."""
    chain = " ".join(f"w{i + 1} = Max(w{i}, w{i})" for i in range(64))
    text = f"""<ir_version: 9, opset_import: ["" : 20]> main (bool c, float[2, 16] x) => (float[2, 16] y) {{
        sizes = Constant<value_ints = [16, 16]>() w0 = ConstantOfShape<value = float[1] {{0.5}}>(sizes) {chain}
        z = MatMul(x, w64)
        y = If(c)<then_branch = then() => (float[2, 16] a) {{ t = Transpose<perm = [1, 0]>(w64) a = MatMul(z, t) }},
                  else_branch = other() => (float[2, 16] b) {{ b = Identity(z) }}> }}"""
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    isthmus("compile", tmp_path / "m.onnx", "-o", tmp_path / "m.isth", timeout=60)
    np.save(tmp_path / "c.npy", np.array(True))
    np.save(tmp_path / "x.npy", np.ones((2, 16), np.float32))
    isthmus("run", tmp_path / "m.isth", "--input", f"c={tmp_path}/c.npy", "--input", f"x={tmp_path}/x.npy",
            "-o", tmp_path / "out")
    assert (np.load(tmp_path / "out/y.npy") == 64).all()


# Chains of elements: rows that are broadcast, a value used twice, whole numbers, truth, limits that are missing.
CHAIN = ["a = Add(x, row)", "b = Sigmoid(a)", "c = Mul(a, b)", "limit = Squeeze(high)", "d = Clip(c, , limit)",
         "e = Div(d, column)", "f = Greater(e, one)", "g = Where(f, e, c)", "h = HardSigmoid<alpha = 0.3>(g)", "i = Cast<to = 6>(h)",
         "j = Add(i, number)", "k = Cast<to = TYPE>(j)", "y = Sub(k, g)"]


@pytest.mark.parametrize("kind", ["float", "double", "float16", "bfloat16"])
@pytest.mark.parametrize("sizes", ["3, 5", "N, M"])
def test_fused_elements(isthmus, tmp_path, kind, sizes):
    """Neighbours in one kernel give the bits that they give one by one."""
    number = {"float": 1, "double": 11, "float16": 10, "bfloat16": 16}[kind]
    rng = np.random.default_rng(0)
    values = {"x": rng.standard_normal((3, 5)) * 3, "row": rng.standard_normal(5), "one": np.ones(1),
              "column": np.array([[0.5], [-2], [3]]), "high": np.array([1.5]), "number": np.array([2])}
    given = []
    for name, value in values.items():
        np.save(tmp_path / f"{name}.npy", value.astype(np.int32 if name == "number" else np.float32))
        given += ["--input", f"{name}_in={tmp_path}/{name}.npy"]
    inputs = f"float[{sizes}] x_in, float[5] row_in, float[3, 1] column_in, float[1] one_in, float[1] high_in, " \
        "int32[1] number_in"
    nodes = " ".join(f"{name} = Cast<to = {6 if name == 'number' else number}>({name}_in)" for name in values)
    nodes += " " + " ".join(CHAIN).replace("TYPE", str(number)) + " z = Cast<to = 1>(y)"
    found = {}
    # What is a result too is no neighbour's alone.
    for case, others in (("fused", ""), ("alone", "abcdeghk")):
        outputs = ", ".join(f"float[{sizes}] {name}" for name in ["z", *(f"{name}_out" for name in others)])
        casts = " ".join(f"{name}_out = Cast<to = 1>({name})" for name in others)
        text = f'<ir_version: 9, opset_import: ["" : 20]> main ({inputs}) => ({outputs}) {{ {nodes} {casts} }}'
        (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
        isthmus("compile", tmp_path / "m.onnx", "-o", tmp_path / f"{case}.isth", "--dump-ir", tmp_path / f"{case}.mlir")
        isthmus("run", tmp_path / f"{case}.isth", *given, "-o", tmp_path / case)
        found[case] = np.load(tmp_path / case / "z.npy").tobytes()
    assert "isthmus.Fused" in (tmp_path / "fused.mlir").read_text()
    assert found["fused"] == found["alone"]
