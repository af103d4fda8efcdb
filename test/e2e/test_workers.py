"""Two workers as separate processes, over shared memory and over mutual TLS."""
import json

import pytest

PROMPT = [3, 200, 17, 42, 9]


@pytest.fixture
def cluster(isthmus, tmp_path):
    isthmus("cluster", "create", tmp_path / "cluster")
    for name in ("board", "server", "me"):
        isthmus("cluster", "add", tmp_path / "cluster", tmp_path / name)
    return tmp_path


def start_workers(start, bundle, kind, folder, **kwargs):
    addresses = []
    for device in ("board", "server"):
        address = f"unix:{folder}/{device}.sock" if kind == "unix" else "tls:127.0.0.1:0"
        worker = start("worker", bundle, "--device", device, "--listen", address, "--cluster", folder / device,
                       "--threads", 1, **kwargs)
        addresses.append(worker.line.split()[-1])
        assert "listens on" in worker.line
    return addresses


@pytest.mark.parametrize("weights", ["f32", "int4"])
@pytest.mark.parametrize("kind", ["unix", "tls"])
def test_same_tokens_as_in_one_process(isthmus, bundles, start, cluster, kind, weights):
    bundle = bundles("llama", weights, split=True)
    first, second = start_workers(start, bundle, kind, cluster)
    remote = isthmus.tokens(bundle, PROMPT, "--worker", first, "--worker", second, "--cluster", cluster / "me")
    assert remote == isthmus.tokens(bundle, PROMPT)
    # A second coordinator after the first has gone.
    assert isthmus.tokens(bundle, PROMPT, "--worker", first, "--worker", second, "--cluster", cluster / "me") == remote


def test_a_worker_that_is_gone(isthmus, bundles, start, tmp_path):
    bundle = bundles("llama", "f32", split=True)
    workers = [start("worker", bundle, "--listen", f"unix:{tmp_path}/{i}.sock") for i in range(2)]
    server = start("serve", bundle, "--port", 0, "--worker", f"unix:{tmp_path}/0.sock", "--worker",
                   f"unix:{tmp_path}/1.sock")
    import openai
    client = openai.OpenAI(base_url=server.line.split()[-1].strip() + "/v1", api_key="none", max_retries=0)
    name = client.models.list().data[0].id
    answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text
    workers[1].stop(kill=True)
    with pytest.raises(openai.InternalServerError, match="a worker is gone"):
        client.completions.create(model=name, prompt=PROMPT, max_tokens=8)
    # The server lives on, and works again when the worker is back.
    start("worker", bundle, "--listen", f"unix:{tmp_path}/1.sock")
    again = client.completions.create(model=name, prompt=PROMPT, max_tokens=8, temperature=0)
    assert again.choices[0].text == answer


def test_strangers_are_refused(isthmus, bundles, start, cluster, tmp_path):
    bundle = bundles("llama", "f32", split=True)
    isthmus("cluster", "create", tmp_path / "foreign")
    isthmus("cluster", "add", tmp_path / "foreign", tmp_path / "stranger")
    first, second = start_workers(start, bundle, "tls", cluster)
    arguments = ("run", bundle, "--tokens", "1,2", "--worker", first, "--worker", second)
    assert "cluster" in isthmus.fails(*arguments, "--cluster", tmp_path / "stranger")
    assert "--cluster" in isthmus.fails(*arguments)
    assert isthmus.tokens(bundle, PROMPT, "--worker", first, "--worker", second, "--cluster", cluster / "me")


def test_joining_with_a_token(isthmus, bundles, start, cluster, tmp_path):
    """A machine that no folder was copied to becomes a member, once for each token."""
    invite = start("cluster", "invite", tmp_path / "cluster", "--listen", "tls:127.0.0.1:0")
    words = invite.process.stdout.readline().split()
    address, token = words[words.index("--from") + 1], words[words.index("--token") + 1]
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    assert "token" in isthmus.fails("cluster", "join", tmp_path / "late", "--from", address, "--token", wrong)
    isthmus("cluster", "join", tmp_path / "late", "--from", address, "--token", token)
    assert invite.process.wait(20) == 0
    assert "'late' has joined" in invite.process.stdout.read()
    assert "invite" in isthmus.fails("cluster", "join", tmp_path / "later", "--from", address, "--token", token)
    assert not (tmp_path / "later").exists()
    bundle = bundles("llama", "f32", split=True)
    assert token.encode() not in bundle.read_bytes()
    first, second = start_workers(start, bundle, "tls", cluster)
    tokens = isthmus.tokens(bundle, PROMPT, "--worker", first, "--worker", second, "--cluster", tmp_path / "late")
    assert tokens == isthmus.tokens(bundle, PROMPT)


def test_clear_refusals(isthmus, bundles, start, tmp_path):
    bundle = bundles("llama", "f32", split=True)
    start("worker", bundle, "--device", "server", "--listen", f"unix:{tmp_path}/s.sock")
    start("worker", bundle, "--listen", f"unix:{tmp_path}/b.sock")
    a, b = f"unix:{tmp_path}/s.sock", f"unix:{tmp_path}/b.sock"
    assert "this worker is device 'server', the plan wants 'board' here" in \
        isthmus.fails("run", bundle, "--tokens", 1, "--worker", a, "--worker", b)
    assert "2 stages, and 1 workers" in isthmus.fails("run", bundle, "--tokens", 1, "--worker", a)
    assert "holds another bundle" in \
        isthmus.fails("run", bundles("llama", "int4", split=True), "--tokens", 1, "--worker", b, "--worker", a)
    assert "budget" in isthmus.fails("run", bundle, "--tokens", 1, "--context", 1000000, "--worker", b, "--worker", a)
    assert "no worker answers" in \
        isthmus.fails("run", bundle, "--tokens", 1, "--worker", f"unix:{tmp_path}/none", "--worker", a)


def test_inspect_shows_the_plan(isthmus, bundles):
    bundle = bundles("llama", "f32", split=True)
    plan = json.loads(isthmus("inspect", bundle, "--json"))["plans"][0]
    assert [s["device"] for s in plan["stages"]] == ["board", "server"]
    for stage in plan["stages"]:
        assert 0 < stage["peak_bytes"] <= stage["budget_bytes"]
    text = isthmus("inspect", bundle)
    assert "board" in text and "[#" in text
