"""'isthmus bench': its figures are of the right things (never how fast they are)."""
import json


def test_profile_names_every_kernel(isthmus, bundles):
    bundle = bundles("llama", "int4")
    out = json.loads(isthmus("bench", bundle, "-p", 40, "-n", 4, "-r", 1, "--profile", "--json"))
    launched = {k for t in json.loads(isthmus("inspect", bundle, "--json"))["templates"] for k in t["kernels"]}
    # Attention has kernels of its own for few rows and for many.
    for kind, others in (("prefill", ("attention_partitions", "attention_merge")), ("decode", ("attention_4",))):
        profile = out["profile"][kind]
        expected = {k for k in launched if not k.startswith(others)}
        assert {k["kernel"] for k in profile["kernels"]} == expected
        for kernel in profile["kernels"]:
            assert kernel["seconds"] > 0 and kernel["bytes"] > 0, kernel
    assert all(value > 0 for value in out["limits"].values())
    # A product's bytes are its weights and rows, its operations two a weight and row.
    decode = {k["kernel"]: k for k in out["profile"]["decode"]["kernels"]}
    product = next(k for name, k in decode.items() if name.startswith("linear_int4"))
    outputs, inputs = (int(n) for n in product["kernel"].split("_")[2].split("x"))
    assert product["ops"] == 2 * outputs * inputs * product["launches"]
    assert product["bytes"] > outputs * inputs * 4.5 / 8 * product["launches"]


def test_trace_is_what_perfetto_reads(isthmus, bundles, tmp_path):
    isthmus("bench", bundles("llama", "int4"), "-p", 0, "-n", 3, "-r", 1, "--threads", 2, "--trace", tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {e["ph"] for e in events} == {"X"}
    assert {e["tid"] for e in events} <= {0, 1}
    assert all(e["dur"] >= 0 and e["ts"] > 0 for e in events)


def test_batches(isthmus, bundles):
    out = json.loads(isthmus("bench", bundles("llama", "int4"), "-p", 0, "-n", 3, "-r", 1, "--batch", 8, "--depth", 40,
                             "--json"))
    assert out["batch"] == 8 and out["decode_tok_s"] > 0
    message = isthmus.fails("bench", bundles("llama", "int4"), "--context", 64, "--batch", 8)
    assert "raise --context" in message
