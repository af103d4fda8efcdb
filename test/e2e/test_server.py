"""The OpenAI API, through the official client and through broken ones."""
import json
import re
import socket
import urllib.error
import urllib.request

import openai
import pytest

from conftest import wait_for

PROMPT = [3, 200, 17, 42, 9]


@pytest.fixture
def server(bundles, start):
    process = start("serve", bundles("llama", "int8"), "--port", 0, "--name", "tiny")
    return process.line.split()[-1].strip()


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=server + "/v1", api_key="none", max_retries=0)


def get(url):
    return urllib.request.urlopen(url, timeout=20).read().decode()


def metric(server, name):
    lines = get(server + "/metrics").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"isthmus_{name} ")))


def post(url, body):
    """(status, parsed body) of a raw POST."""
    try:
        return 200, json.load(urllib.request.urlopen(urllib.request.Request(url, body), timeout=20))
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_models_health_and_metrics(server, client):
    assert [m.id for m in client.models.list().data] == ["tiny"]
    assert json.loads(get(server + "/health")) == {"status": "ok"}
    assert "# TYPE isthmus_requests_total counter" in get(server + "/metrics")
    assert server.startswith("http://127.0.0.1:")  # loopback unless told otherwise


def test_chat_streams_what_it_answers_whole(client):
    arguments = dict(model="tiny", messages=[{"role": "user", "content": "the thing in an é"}], max_tokens=20,
                     temperature=0)
    whole = client.chat.completions.create(**arguments)
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage.completion_tokens == 20 or whole.choices[0].finish_reason == "stop"
    chunks = list(client.chat.completions.create(**arguments, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason


def test_completion_usage_seed_and_stop(client):
    def ask(**more):
        return client.completions.create(model="tiny", prompt=PROMPT, max_tokens=24, **more)
    plain = ask(temperature=0)
    assert plain.usage.prompt_tokens == len(PROMPT)
    text = plain.choices[0].text
    stop = re.search("[!-~]{2}", text).group()  # half characters are never sent, so nothing stops at them
    stopped = ask(temperature=0, stop=[stop])
    assert stopped.choices[0].text == text[:text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    assert ask(seed=7).choices[0].text == ask(seed=7).choices[0].text
    assert len({ask(seed=s).choices[0].text for s in range(6)}) > 1
    assert ask(temperature=1.0, extra_body={"top_k": 1}).choices[0].text == text
    assert ask(temperature=1.0, top_p=1e-6).choices[0].text == text


@pytest.mark.parametrize("body,status,words", [
    (b"", 400, "not JSON"), (b"{", 400, "not JSON"), (b"[]", 400, "JSON object"), (b"[" * 100000, 400, "not JSON"),
    (b'{"prompt":[1],"temperature":"hot"}', 400, "'temperature' must be a number"),
    (b'{"prompt":[1],"max_tokens":0}', 400, "'max_tokens'"), (b'{"prompt":[1],"n":2}', 400, "one answer"),
    (b'{"prompt":[99999]}', 400, "outside the vocabulary"), (b'{"prompt":[]}', 400, "empty"),
    (b'{"prompt":[1.5]}', 400, "token ids"), (b"{}", 400, "'prompt' is missing"),
    (b'{"model":"gpt-4","prompt":[1]}', 404, "there is no model"), (b'{"prompt":[1],"stop":5}', 400, "'stop'"),
    (b'{"prompt":[1],"logprobs":3}', 400, "not supported"), (b'{"prompt":"\xff"}', 400, "not JSON")])
def test_bad_bodies(server, body, status, words):
    got, answer = post(server + "/v1/completions", body)
    assert got == status
    assert words in answer["error"]["message"]


@pytest.mark.parametrize("body,words", [
    (b'{"messages":[]}', "at least one"), (b'{"messages":[{"content":"x"}]}', "'role'"),
    (b'{"messages":[{"role":"user","content":5}]}', "'content'"),
    (b'{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}', "text content only"),
    (b'{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]}', "'tools' is not supported")])
def test_bad_chats(server, body, words):
    status, answer = post(server + "/v1/chat/completions", body)
    assert status == 400 and words in answer["error"]["message"]


def test_prompt_longer_than_the_context(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="tiny", prompt=[5] * 5000)
    assert error.value.code == "context_length_exceeded"
    assert "5000 tokens" in error.value.message


def test_unknown_paths_and_methods(server):
    for path, status in (("/v2/models", 404), ("/v1/completions", 405)):
        with pytest.raises(urllib.error.HTTPError) as error:
            get(server + path)
        assert error.value.code == status


def raw(server, data):
    host, port = server.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(data)
    return connection


@pytest.mark.parametrize("data", [
    b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * 40000 + b"\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n"])
def test_malformed_http(server, data):
    with raw(server, data) as connection:
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert json.loads(get(server + "/health"))["status"] == "ok"


def test_web_pages_are_refused(server):
    request = urllib.request.Request(server + "/v1/models", headers={"Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=20)
    assert error.value.code == 403


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_cancels_and_frees_pages(bundles, start, stream):
    # A model and a length that keep it busy for seconds.
    process = start("serve", bundles("wide", "f32"), "--port", 0, "--context", 512, "--threads", 1)
    server = process.line.split()[-1].strip()
    body = json.dumps(dict(prompt=[1, 2, 3], max_tokens=500, temperature=0, stream=stream)).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    connections = [raw(server, head + body) for _ in range(12)]
    wait_for(lambda: metric(server, "requests_total") == 12)
    for connection in connections:
        connection.close()
    wait_for(lambda: metric(server, "requests_active") == 0 and metric(server, "requests_waiting") == 0)
    assert metric(server, "kv_pages_used") == 0
    assert metric(server, "generated_tokens_total") < 12 * 500


def test_special_tokens_in_a_message_are_text(client):
    def count(content):
        return client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": content}],
                                              max_tokens=1).usage.prompt_tokens
    # As a special token it would be one id.
    assert count("<|end|>") - count("") == len("<|end|>")
