"""Encoders of texts and images: against transformers, the interpreter, and Pillow."""
import base64
import concurrent.futures
import io
import json
import pathlib
import subprocess

import numpy as np
import openai
import pytest
from PIL import Image

import tiny_encoders
from conftest import BIN, needs_matrix_unit
from test_server import metric, post

REFERENCES = json.loads((pathlib.Path(__file__).parent / "encoder_references.json").read_text())
SEQUENCES = REFERENCES["sequences"]


@pytest.fixture(scope="session")
def encoders(isthmus, tmp_path_factory):
    """Compiles each tiny encoder once: encoders(name, weights, *options)."""
    made = {}

    def get(name, weights="f32", *options):
        if (name, weights, options) not in made:
            folder = tmp_path_factory.mktemp("encoder")
            tiny_encoders.write_folder(folder / name, name)
            isthmus("compile", folder / name, "--weights", weights, "-o", folder / "m.isth", *options)
            made[name, weights, options] = folder / "m.isth"
        return made[name, weights, options]

    return get


@pytest.fixture
def encode(isthmus, tmp_path):
    """Vectors of arrays and files: encode(bundle, "--image", ...)."""
    def run(bundle, *args, **arrays):
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
            args += ("--input", f"{name}={tmp_path / name}.npy")
        isthmus("run", bundle, *args, "-o", tmp_path / "out.npy")
        return np.load(tmp_path / "out.npy")

    return run


def near(ours, theirs, tolerance=1e-4):
    theirs = np.array(theirs, np.float32)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["sentence", "bert"])
def test_texts_equal_transformers(encoders, encode, name):
    for ids, theirs in zip(SEQUENCES, REFERENCES[name]):
        near(encode(encoders(name), input_ids=np.array(ids, np.int64)), [theirs])


def test_bert_from_gguf(isthmus, encoders, encode, tmp_path):
    tiny_encoders.write_gguf(tmp_path / "m.gguf")
    isthmus("compile", tmp_path / "m.gguf", "--weights", "f32", "-o", tmp_path / "m.isth")
    for ids, theirs in zip(SEQUENCES, REFERENCES["sentence"]):
        near(encode(tmp_path / "m.isth", input_ids=np.array(ids)), [theirs])
    texts = ("--text", "The cat sits over an isthmus!", "--text", "[CLS] Unknown Ünïcode \u65e5 word, sitting")
    assert np.array_equal(encode(tmp_path / "m.isth", *texts), encode(encoders("sentence"), *texts))


@pytest.mark.parametrize("name,size", [("vit", 72), ("vit_features", 72), ("clip", 32)])
def test_images_equal_transformers(encoders, encode, name, size):
    ours = encode(encoders(name), pixel_values=tiny_encoders.pixel_values(3, size))
    near(ours, REFERENCES["clip_image" if name == "clip" else name])


def test_two_towers_equal_transformers(isthmus, encoders, tmp_path):
    np.save(tmp_path / "pixels.npy", tiny_encoders.pixel_values(3, 32))
    for ids, text, scores in zip(REFERENCES["texts"], REFERENCES["clip_text"], REFERENCES["clip_scores"]):
        np.save(tmp_path / "ids.npy", np.array(ids, np.int32))
        out = json.loads(isthmus("run", encoders("clip"), "--json", "--input", f"input_ids={tmp_path / 'ids.npy'}",
                                 "--input", f"pixel_values={tmp_path / 'pixels.npy'}"))
        near(np.array(out["results"][0]["embedding"], np.float32), text)
        near(np.array([m["logits"][0] for m in out["matches"]], np.float32), scores)


@pytest.mark.parametrize("weights", ["f32", "bf16", "int8", "int8-row", "int7", "int7-row", "int4", "int4-row"])
@pytest.mark.parametrize("name,program", [("sentence", "text"), ("vit", "image"), ("clip", "image"), ("clip", "text")])
def test_kernels_equal_the_interpreter(isthmus, encoders, encode, tmp_path, name, program, weights):
    bundle = encoders(name, weights)
    kv = "f32" if weights == "f32" else "bf16"
    quantize = weights.replace("-row", " scales=row")
    options = [] if weights == "f32" else [f"--fm-quantize-weights=format={quantize}"]
    module = subprocess.run([BIN / "isthmus-translate", "--import-model", f"--model={bundle.parent / name}",
                             "/dev/null"], check=True, capture_output=True).stdout
    module = subprocess.run([BIN / "isthmus-opt", *options, f"--fm-set-kv-format=format={kv}", "--canonicalize"],
                            input=module, check=True, capture_output=True).stdout
    row = 0
    if program == "text":
        ids = SEQUENCES[2] if name == "sentence" else REFERENCES["texts"][0]
        ours = encode(bundle, input_ids=np.array(ids))
        given = "--tokens=" + ",".join(map(str, ids))
        row = len(ids) - 1
    else:
        size, patch = (72, 4) if name == "vit" else (32, 8)
        pixels = tiny_encoders.pixel_values(1, size)
        ours = encode(bundle, pixel_values=pixels)
        side = size // patch
        rows = pixels[0].reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows]).tofile(tmp_path / "rows")
        given = f"--rows={tmp_path / 'rows'}"
    raw = subprocess.run([BIN / "isthmus-translate", "--interpret", f"--program={program}", given], input=module,
                         check=True, capture_output=True).stdout
    reference = np.frombuffer(raw, np.float32).reshape(-1, ours.shape[1])[row]
    error = np.abs(ours[0] - reference).max() / np.abs(reference).max()
    # A value on the edge between two steps may round either way, see test_tokens.py.
    assert error <= {"f32": 1e-5, "bf16": 8e-3}.get(weights, 5e-2)


@pytest.mark.parametrize("weights,options", [
    ("f32", []), ("int8", []),
    *(pytest.param(w, ["--products", "matrix"], marks=needs_matrix_unit) for w in ("f32", "bf16"))])
def test_results_do_not_depend_on_the_batch(isthmus, encoders, encode, weights, options):
    """Alone, among others, in steps of other sizes, and on one thread: the same bits."""
    pixels = tiny_encoders.pixel_values(5, 72)
    together = encode(encoders("vit", weights, *options), pixel_values=pixels)
    assert np.array_equal(together, encode(encoders("vit", weights, *options), "--threads", 1, pixel_values=pixels))
    for i in (0, 4):
        assert np.array_equal(together[i:i + 1], encode(encoders("vit", weights, *options), pixel_values=pixels[i]))
    short, long = np.array([SEQUENCES[1]]), np.array([SEQUENCES[2][:5], SEQUENCES[1], SEQUENCES[2][9:14]])
    assert np.array_equal(encode(encoders("sentence", weights, *options), input_ids=short)[0],
                          encode(encoders("sentence", weights, *options), input_ids=long)[1])
    # A step of few rows has kernels of its own.
    few = np.array([[2, 9, 3]])
    assert np.array_equal(encode(encoders("sentence", weights, *options), input_ids=few)[0],
                          encode(encoders("sentence", weights, *options), input_ids=np.repeat(few, 40, 0))[39])


def prepared(picture, config, size):
    """Pillow's and NumPy's preprocessing, as transformers' processors do it."""
    picture = picture.convert("RGB")
    if edge := config["size"].get("shortest_edge"):
        width, height = picture.size
        long = edge * max(width, height) // min(width, height)
        picture = picture.resize((edge, long) if width <= height else (long, edge), config["resample"])
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
    else:
        picture = picture.resize((size, size), config["resample"])
    values = np.asarray(picture, np.float32) * np.float32(config["rescale_factor"])
    values = (values - np.float32(config["image_mean"])) / np.float32(config["image_std"])
    return values.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize("resample", [0, 1, 2, 3])
def test_images_are_scaled_as_pillow_does(isthmus, encode, tmp_path, resample):
    folder = tiny_encoders.write_folder(tmp_path / "vit", "vit")
    config = tiny_encoders.VIT_IMAGES | dict(resample=resample)
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    isthmus("compile", folder, "--weights", "f32", "-o", tmp_path / "m.isth")
    for width, height in ((72, 72), (200, 31), (17, 90), (300, 224)):
        picture = Image.fromarray(tiny_encoders.image(width, height))
        picture.save(tmp_path / "p.png")
        near(encode(tmp_path / "m.isth", "--image", tmp_path / "p.png"),
             encode(tmp_path / "m.isth", pixel_values=prepared(picture, config, 72)), 1e-5)


@pytest.mark.parametrize("kind", ["rgb.png", "grey.png", "palette.png", "transparent.png", "rgb.jpg", "grey.jpg",
                                  "progressive.jpg"])
def test_kinds_of_pictures(encoders, encode, tmp_path, kind):
    """Cropped to the middle after scaling, as CLIP has it."""
    picture = Image.fromarray(tiny_encoders.image(61, 47))
    mode = {"grey": "L", "palette": "P", "transparent": "RGBA"}.get(kind.split(".")[0], "RGB")
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(tiny_encoders.image(61, 47, 1)[..., 0]))
    options = dict(progressive=True) if "progressive" in kind else {}
    picture.convert(mode).save(tmp_path / kind, **options)
    theirs = prepared(Image.open(tmp_path / kind), tiny_encoders.CLIP_IMAGES, 32)
    near(encode(encoders("clip"), "--image", tmp_path / kind), encode(encoders("clip"), pixel_values=theirs), 1e-5)


def test_words_come_out_for_people(isthmus, encoders, tmp_path):
    Image.fromarray(tiny_encoders.image(72, 72)).save(tmp_path / "a.png")
    classes = isthmus("run", encoders("vit"), "--image", tmp_path / "a.png")
    assert all(label in classes for label in tiny_encoders.LABELS) and "%" in classes
    matches = isthmus("run", encoders("clip"), "--image", tmp_path / "a.png", "--text", "the cat", "--text", "[a dog]")
    assert "%  the cat" in matches and "%  [a dog]" in matches
    table = isthmus("run", encoders("sentence"), "--text", "the cat sits", "--text", "the dog").splitlines()
    assert len(table) == 2 and table[0].split()[-2:][0] == "1.0000"


def test_bench(isthmus, encoders):
    out = json.loads(isthmus("bench", encoders("vit"), "--batch", 3, "-r", 2, "--json"))
    assert out["batch"] == 3 and out["sequences_s"] > 0
    assert json.loads(isthmus("bench", encoders("clip"), "--encoder", "text", "-r", 1, "--json"))["program"] == "text"


@pytest.mark.parametrize("name,args,words", [
    ("sentence", ["--image", "a.png"], "takes no images"), ("vit", ["--text", "x"], "takes no texts"),
    ("vit", [], "give it --text"), ("vit", ["--prompt", "x"], "give it --text"), ("vit", ["--image", "b"], "neither a PNG"),
    ("vit", ["--image", "cut.png"], "cut.png"), ("vit", ["--image", "cut.jpg"], "cut.jpg"),
    ("vit", ["--input", "pixels=a.npy"], "expected input_ids"), ("vit", ["--input", "pixel_values=bad.npy"], "[n, 3, 72, 72]"),
    ("vit", ["--input", "pixel_values=b"], ".npy file"), ("sentence", ["--text", "the " * 400], "takes 1 to 320"),
    ("sentence", ["--input", "input_ids=high.npy"], "outside the vocabulary"),
    ("sentence", ["--input", "input_ids=bad.npy"], "i32 or i64")])
def test_errors(isthmus, encoders, tmp_path, monkeypatch, name, args, words):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(tiny_encoders.image(40, 40)).save("a.png")
    Image.fromarray(tiny_encoders.image(40, 40)).save("a.jpg")
    pathlib.Path("cut.png").write_bytes(pathlib.Path("a.png").read_bytes()[:700])
    pathlib.Path("cut.jpg").write_bytes(pathlib.Path("a.jpg").read_bytes()[:100])
    pathlib.Path("b").write_bytes(b"neither")
    np.save("bad.npy", np.zeros((2, 3), np.float32))
    np.save("high.npy", np.full((1, 3), 9999))
    assert words in isthmus.fails("run", encoders(name), *args)


@pytest.mark.parametrize("command", [["chat"], ["eval", "--text", "x"], ["logits", "--tokens", "1", "-o", "x"]])
def test_commands_for_other_models(isthmus, encoders, command):
    assert "makes embeddings or classes" in isthmus.fails(command[0], encoders("vit"), *command[1:])


def test_decoders_encode_nothing(isthmus, bundles):
    assert "give it a --prompt" in isthmus.fails("run", bundles("llama"), "--text", "x")


@pytest.mark.parametrize("change,words", [
    (dict(do_resize=False), "do_resize"), (dict(size=dict(shortest_edge=72)), "shortest_edge"),
    (dict(resample=9), "resample"), (dict(image_std=[1, 0, 1]), "image_std"), (dict(image_mean=[1]), "image_mean"),
    (dict(size=dict(height=70, width=72)), "size")])
def test_preprocessing_that_is_not_supported(isthmus, tmp_path, change, words):
    folder = tiny_encoders.write_folder(tmp_path / "vit", "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps(tiny_encoders.VIT_IMAGES | change))
    assert words in isthmus.fails("compile", folder, "-o", tmp_path / "m.isth")


#
# 'isthmus serve'
#

@pytest.fixture
def serve(start, encoders):
    def run(name):
        return start("serve", encoders(name), "--port", 0, "--name", "tiny").line.split()[-1].strip()

    return run


def test_embeddings_through_the_official_client(serve, isthmus, encoders):
    server = serve("sentence")
    client = openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0)
    texts = ["the cat sits", "an isthmus"]
    local = json.loads(isthmus("run", encoders("sentence"), "--json", "--text", texts[0], "--text", texts[1]))["results"]
    for more in ({}, dict(encoding_format="float"), dict(encoding_format="base64")):
        answer = client.embeddings.create(model="tiny", input=texts, **more)
        assert [d.index for d in answer.data] == [0, 1]
        for mine, result in zip(answer.data, local):
            vector = mine.embedding
            if isinstance(vector, str):
                vector = np.frombuffer(base64.b64decode(vector), np.float32)
            assert np.array_equal(np.array(vector, np.float32), np.array(result["embedding"], np.float32))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 6
    ids = client.embeddings.create(model="tiny", input=[SEQUENCES[1]], encoding_format="float")
    near(np.array(ids.data[0].embedding, np.float32), REFERENCES["sentence"][1])
    with pytest.raises(openai.BadRequestError, match="makes embeddings"):
        client.completions.create(model="tiny", prompt="x")


def test_requests_of_many_share_steps(serve, isthmus, encoders):
    """Whatever came meanwhile is in the next step, and nobody's vectors change for it."""
    server = serve("sentence")
    texts = [" ".join(["the cat sits over an isthmus"] * (1 + i % 7)) + str(i) for i in range(48)]
    local = json.loads(isthmus("run", encoders("sentence"), "--json", *[a for t in texts for a in ("--text", t)]))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda t: post(server + "/v1/embeddings", json.dumps(dict(input=t)).encode()), texts))
    assert all(status == 200 for status, _ in answers)
    for (_, answer), mine in zip(answers, local["results"]):
        assert answer["data"][0]["embedding"] == mine["embedding"]
    assert metric(server, "requests_total") == 48
    assert 0 < metric(server, "steps_total") <= 48


def test_images_over_http(serve, isthmus, encoders, tmp_path):
    file = io.BytesIO()
    Image.fromarray(tiny_encoders.image(50, 40)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    (tmp_path / "a.png").write_bytes(file.getvalue())
    server = serve("clip")
    body = dict(input=[{"image": text}, "the cat", {"type": "image_url", "image_url": {
        "url": "data:image/png;base64," + text}}, {"text": "the cat"}])
    status, answer = post(server + "/v1/embeddings", json.dumps(body).encode())
    assert status == 200
    got = [d["embedding"] for d in answer["data"]]
    local = json.loads(isthmus("run", encoders("clip"), "--json", "--image", tmp_path / "a.png", "--text", "the cat"))
    theirs = [r["embedding"] for r in local["results"]]
    assert got[0] == got[2] and got[1] == got[3]
    near(np.array(got[:2], np.float32), [theirs[1], theirs[0]], 1e-6)
    server = serve("vit")
    status, answer = post(server + "/classify", json.dumps(dict(input={"image": text})).encode())
    classes = json.loads(isthmus("run", encoders("vit"), "--json", "--image", tmp_path / "a.png"))["results"][0]["classes"]
    assert status == 200 and answer["data"][0]["label"] == classes[0]["label"]
    assert abs(max(answer["data"][0]["probs"]) - classes[0]["probability"]) < 1e-6
    assert post(server + "/v1/embeddings", b'{"input":"x"}')[0] == 400


@pytest.mark.parametrize("body,words", [
    (b"{}", "'input' is missing"), (b'{"input":5}', "each input"), (b'{"input":[]}', "each input"),
    (b'{"input":[[1.5]]}', "token ids"), (b'{"input":[[9999]]}', "outside the vocabulary"),
    (b'{"input":{"image":"!!!"}}', "base64"), (b'{"input":{"image":"aGVsbG8="}}', "neither a PNG"),
    (b'{"input":{"image_url":"http://x/y.png"}}', "not fetched"), (b'{"input":"a","dimensions":3}', "32 dimensions"),
    (b'{"input":"a","encoding_format":"hex"}', "encoding_format"), (b'{"input":"' + b"a " * 99 + b'"}', "takes 1 to 24"),
    (b'{"input":[' + b'"a",' * 3000 + b'"a"]}', "at most 2048"), (b'{"model":"gpt","input":"a"}', "no model")])
def test_bad_requests(serve, body, words):
    status, answer = post(serve("clip") + "/v1/embeddings", body)
    assert status in (400, 404) and words in answer["error"]["message"]
