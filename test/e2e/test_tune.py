"""'isthmus tune', and compiling with what it finds."""
import json
import re

from test_numerics import PROMPT

# As far from every default as the fields allow.
STRANGE = ("dot_rows=3,nibble_rows=5,unroll_groups=0,whole_rows=5,whole_panels=1,float_rows=5,pair_rows=5,float_panels=1,"
           "attention_queries=5,attention_sums=5,tile_bytes=4096,panels=6,prefetch_farthest=64,prefetch_near=192")


def target_of(isthmus, bundle):
    return json.loads(isthmus("inspect", bundle, "--json"))["kernels"][0]


def test_schedules_change_no_bit(isthmus, bundles, tmp_path):
    for weights in ("f32", "bf16", "int8", "int8-row", "int4", "int4-row"):
        plain = bundles("llama", weights)
        target = target_of(isthmus, plain)["target"]
        stored = tmp_path / "schedule.json"
        stored.write_text(json.dumps(dict(target=target, schedule=STRANGE, trials=[], finished=[])))
        other = bundles("llama", weights, "--schedule", stored)
        assert target_of(isthmus, other)["schedule"] == STRANGE != target_of(isthmus, plain)["schedule"]
        expected = isthmus.logits(plain, PROMPT, tmp_path).tobytes()
        assert isthmus.logits(other, PROMPT, tmp_path).tobytes() == expected
        assert isthmus.logits(other, PROMPT, tmp_path, "--rows", 1).tobytes() == expected


def test_tune_is_kept_and_used(isthmus, bundles, tmp_path):
    home = {"ISTHMUS_HOME": str(tmp_path / "home")}
    found = json.loads(isthmus("tune", "--only", "unroll_groups", "--layers", 1, "--json", env=home))
    stored = json.loads(open(found["file"]).read())
    assert stored["finished"] == ["unroll_groups"] and stored["schedule"] == found["schedule"]
    assert [t["field"] for t in stored["trials"]] == ["unroll_groups"] and stored["trials"][0]["time_ratio"] > 0
    # Nothing is measured twice; compile takes what is kept, or does not.
    assert json.loads(isthmus("tune", "--only", "unroll_groups", "--json", env=home)) == found
    own = re.search("tile_bytes=([0-9]+)", found["schedule"])
    stored["schedule"] = found["schedule"].replace(own[0], "tile_bytes=65536")
    open(found["file"], "w").write(json.dumps(stored))
    model = bundles("llama").parent / "llama"
    for options, tile in (([], 65536), (["--schedule", "default"], own[1])):
        isthmus("compile", model, *options, "-o", tmp_path / "x.isth", env=home)
        assert f"tile_bytes={tile}," in target_of(isthmus, tmp_path / "x.isth")["schedule"]


def test_errors(isthmus, bundles, tmp_path):
    model = bundles("llama").parent / "llama"
    output = ["-o", tmp_path / "x.isth"]
    assert "no such file" in isthmus.fails("compile", model, "--schedule", tmp_path / "none", *output)
    stored = tmp_path / "s.json"
    for text, message in (("{", "no tuned schedule"), ('{"target": "z80"}', "z80"),
                          ('{"target": "%s", "schedule": "speed=1"}' % target_of(isthmus, bundles("llama"))["target"],
                           "has no 'speed'")):
        stored.write_text(text)
        error = isthmus.fails("compile", model, "--schedule", stored, *output)
        assert message in error and "isthmus tune --restart" in error
    stored.write_text("{}")
    assert "one target" in isthmus.fails("compile", model, "--schedule", stored, "--target", "host,aarch64", *output)
    assert "this machine can run" in isthmus.fails("tune", "--target", "aarch64")
