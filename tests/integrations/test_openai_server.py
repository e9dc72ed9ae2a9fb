"""`evenhand serve` over real HTTP: what comes back is what the model itself answers."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import evenhand
from evenhand.cli import app as cli
from evenhand.core.registry import build_benchmark, build_method
from evenhand.errors import EndpointError, EvenhandError, MissingAbilityError, SettingsError
from evenhand.inference import Prompt
from evenhand.interfaces import Dialogue, Message, Model, Reply, Sampling
from evenhand.methods.none import Untouched
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models import Mitigated
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model
from evenhand.testing import ScriptedModel

uvicorn = pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")
app_module = pytest.importorskip("evenhand.integrations.openai_server.app")

KEY = "sk-verysecret-0123456789"
TALK = [{"role": "user", "content": "Who was there?"}]


class Server:
    """An application on a free port of this machine, in a thread."""

    def __init__(self, model: Model, **options: Any) -> None:
        app = app_module.build_app(model, **options)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.url = f"{self.place}/v1"
        self.uvicorn = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=2))
        self.thread = threading.Thread(target=lambda: self.uvicorn.run(sockets=[self.socket]), daemon=True)
        self.thread.start()
        while not self.uvicorn.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(600)
        self.socket.close()

    def client(self, key: str = "none") -> Any:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.fetch(path, content, {"Content-Type": "application/json", **(headers or {})})

    def fetch(self, path: str, content: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(self.place + path, content, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def chat(self, **more: Any) -> tuple[int, Any]:
        return self.post("/v1/chat/completions", {"model": "m", "messages": TALK, "temperature": 0, **more})


@contextmanager
def serving(model: Model, **options: Any) -> Iterator[Server]:
    server = Server(model, **options)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _no_keys_no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVENHAND_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def local() -> LocalModel:
    return tiny_model(name="m")


@pytest.fixture(scope="module")
def server(local: LocalModel) -> Iterator[Server]:
    with serving(local) as running:
        yield running


@pytest.fixture(scope="module")
def demo() -> LocalModel:
    model = evenhand.load("demo")
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(scope="module")
def demo_server(demo: LocalModel) -> Iterator[Server]:
    with serving(demo) as running:
        yield running


def say(*texts: str, draw: int = 0) -> list[Dialogue]:
    return [Dialogue((Message("user", text),), draw) for text in texts]


def bbq(step: int) -> list[Any]:
    return [item.question for item in build_benchmark("bbq(source=demo)").load()[::step]]


def open_ended(count: int) -> list[str]:
    """Prompts that the demo model answers in many ways when sampled."""
    return [f"{q.context} {q.question} Explain." for q in bbq(3456 // count)]


# --------------------------------------------------------------------------------------- as the model itself answers


def test_the_official_client_gets_what_the_model_writes(local: LocalModel, server: Server) -> None:
    messages = [{"role": "system", "content": "Explain"}, *TALK]
    talk = Dialogue((Message("system", "Explain"), Message("user", "Who was there?")))
    expected = local.generate([talk], Sampling(max_new_tokens=9))[0]
    made = server.client().chat.completions.create(model="m", messages=messages, temperature=0, max_tokens=9)
    assert made.choices[0].message.content == expected.text and made.choices[0].message.role == "assistant"
    assert made.choices[0].finish_reason == ("stop" if expected.finished else "length") == "length"
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (expected.usage.prompt_tokens, 9)
    assert made.usage.total_tokens == expected.usage.prompt_tokens + 9
    assert made.object == "chat.completion" and made.model == "m" and made.id.startswith("chatcmpl-")
    assert made.system_fingerprint == f"fp_{local.fingerprint[:16]}"


def test_a_stream_is_the_same_reply_in_pieces(server: Server) -> None:
    asked: dict[str, Any] = {"model": "m", "messages": TALK, "temperature": 0, "max_tokens": 9}
    whole = server.client().chat.completions.create(**asked)
    chunks = list(server.client().chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(pieces) > 3 and "".join(pieces) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].usage == whole.usage and not chunks[-1].choices
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == "length" and set(reasons[:-1]) == {None} and len({c.id for c in chunks}) == 1
    without = list(server.client().chat.completions.create(**asked, stream=True))
    assert all(c.usage is None for c in without) and len(without) == len(chunks) - 1


def slowed(model: LocalModel, seconds: float) -> Callable[[], int]:
    """Make every forward of a model slow; gives how many there have been."""
    count = 0

    def wait(*_: object) -> None:
        nonlocal count
        count += 1
        time.sleep(seconds)

    model.engine.module.register_forward_pre_hook(wait)
    return lambda: count


def opened(server: Server, stream: bool, content: str = "Who was there?", most: int = 400) -> socket.socket:
    """A connection on which a long reply was asked for; of a stream the first words have come."""
    messages = [{"role": "user", "content": content}]
    body = json.dumps({"model": "m", "messages": messages, "temperature": 0, "max_tokens": most, "stream": stream})
    line = socket.create_connection(server.socket.getsockname(), timeout=60)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
    line.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    came = b""
    while stream and came.count(b'"content"') < 3:
        came += line.recv(4096)
    return line


def settled(count: Callable[[], int]) -> int:
    """How many forwards there are once no more come."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        before = count()
        time.sleep(0.3)
        if count() == before:
            return before
    pytest.fail("the model is still writing")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_ends_its_reply(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model(name="m")
    count = slowed(model, 0.01)
    with serving(model) as running:
        line = opened(running, stream)
        until = time.monotonic() + 30
        while count() < 20 and time.monotonic() < until:
            time.sleep(0.01)
        line.close()
        assert 20 <= settled(count) < 300, "400 tokens are 400 forwards"
        assert running.chat(max_tokens=3)[0] == 200, "the next client is answered"
    gc.collect()  # asyncio complains of an exception that nobody took when it is thrown away
    assert "never retrieved" not in caplog.text


def test_a_client_that_hangs_up_does_not_end_the_replies_of_others(local: LocalModel) -> None:
    """Two of three ask for the same reply, and one of these goes; another asks for one of its own."""
    model = tiny_model(name="m")
    sampling = Sampling(max_new_tokens=60)
    expected = [r.text for r in local.generate(say("Who was there?", "Explain"), sampling)]
    slowed(model, 0.02)
    with serving(model) as running, ThreadPoolExecutor(3) as pool:
        blocking = pool.submit(running.chat, max_tokens=2)  # while it is answered, the others gather
        asked = [pool.submit(opened, running, True, most=60)]
        others = [{"role": "user", "content": "Explain"}]
        asked += [pool.submit(running.chat, max_tokens=60, messages=m) for m in (TALK, others)]
        asked[0].result().close()
        replies = [future.result()[1]["choices"][0]["message"]["content"] for future in asked[1:]]
        assert replies == expected and blocking.result()[0] == 200


def test_a_stream_ends_with_done(server: Server) -> None:
    body = {"model": "m", "messages": TALK, "max_tokens": 3, "stream": True, "n": 2}
    request = urllib.request.Request(
        f"{server.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        events = reply.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""] and all(e.startswith("data: {") for e in events[:-2])
    assert {json.loads(e[6:])["choices"][0]["index"] for e in events[:-2]} == {0, 1}


@pytest.mark.parametrize("way", ["letters", "generation"])
def test_the_demo_model_decides_the_same_behind_the_protocol(demo: LocalModel, demo_server: Server, way: Any) -> None:
    from dataclasses import replace

    asked = [replace(q, answer_by=way) for q in bbq(96)]
    served = evenhand.load(f"endpoint:{demo_server.url}#demo").choose(asked)
    here = demo.choose(asked)
    assert len(asked) > 35 and [c.decision for c in served] == [c.decision for c in here]
    assert len({c.decision for c in here}) == 3
    assert [c.usage.prompt_tokens for c in served] == [c.usage.prompt_tokens for c in here]
    if way == "generation":
        assert [c.reply for c in served] == [c.reply for c in here]
    else:
        for one, other in zip(served, here, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
            assert one.mass == pytest.approx(other.mass, abs=1e-4)


@pytest.mark.parametrize("spec", ["self_debias", "intent_self_correction(rounds=1,threshold=0)"])
def test_a_method_decides_the_same_by_letters_here_and_behind_the_protocol(
    demo: LocalModel, demo_server: Server, spec: str
) -> None:
    """The first answer in the dialogue is the letter that was decided, in both, and so runs repeat."""
    from dataclasses import replace

    method = build_method(spec)
    asked = [replace(q, answer_by="letters") for q in bbq(86 if spec == "self_debias" else 432)]
    endpoint = evenhand.load(f"endpoint:{demo_server.url}#demo")
    here, served = method.apply(demo).choose(asked), method.apply(endpoint).choose(asked)
    assert [c.decision for c in served] == [c.decision for c in here] and len({c.decision for c in here}) > 1
    assert [c.before for c in served] == [c.before for c in here]
    assert {c.reply for c in served} == {""}
    again = method.apply(endpoint).choose(asked)
    assert [(c.decision, c.before) for c in again] == [(c.decision, c.before) for c in served]


@pytest.mark.parametrize(
    "spec",
    [
        "self_debias(answer_by=generation)",
        "self_debias(variant=explanation,answer_by=generation)",
        "instruction(wording=high_1)",
        "moral_self_correction(answer_by=generation)",
        "intent_self_correction(answer_by=generation,rounds=1)",
    ],
)
def test_a_method_decides_the_same_here_and_behind_the_protocol(
    demo: LocalModel, demo_server: Server, spec: str
) -> None:
    """The same turns, the same replies, the same cost."""
    from dataclasses import replace

    method = build_method(spec)
    asked = [replace(q, answer_by="generation") for q in bbq(216)]
    endpoint = evenhand.load(f"endpoint:{demo_server.url}#demo")
    here, served = method.apply(demo).choose(asked), method.apply(endpoint).choose(asked)
    assert [c.decision for c in served] == [c.decision for c in here] and len({c.decision for c in here}) > 1
    assert [c.before for c in served] == [c.before for c in here]
    assert [c.usage for c in served] == [c.usage for c in here]


def test_a_seed_and_a_draw_give_the_models_own_sample(demo: LocalModel, demo_server: Server) -> None:
    prompts = open_ended(6)
    sampling = Sampling(1.0, 12, 0.95, seed=7)
    here = demo.generate([Dialogue((Message("user", p),), draw) for p in prompts for draw in range(3)], sampling)
    knobs = {"model": "demo", "temperature": 1.0, "top_p": 0.95, "max_tokens": 12, "seed": 7, "n": 3}
    create = demo_server.client().chat.completions.create
    made = [create(messages=[{"role": "user", "content": p}], **knobs) for p in prompts]
    served = [choice.message.content for reply in made for choice in reply.choices]
    assert served == [r.text for r in here] and len(set(served)) > 5


def test_without_a_seed_every_reply_is_fresh(server: Server) -> None:
    asked = {"max_tokens": 12, "n": 4}
    texts = [c["message"]["content"] for _ in range(3) for c in server.chat(temperature=1, **asked)[1]["choices"]]
    assert len(set(texts)) > 8
    greedy = {c["message"]["content"] for _ in range(2) for c in server.chat(**asked)[1]["choices"]}
    assert len(greedy) == 1


def test_choices_count_the_prompt_once(server: Server) -> None:
    one, three = (server.chat(temperature=1, seed=3, max_tokens=5, n=n)[1]["usage"] for n in (1, 3))
    assert one["prompt_tokens"] == three["prompt_tokens"] > 0
    assert one["completion_tokens"] <= 5 < three["completion_tokens"] <= 15
    assert all(u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] for u in (one, three))


def test_first_tokens_and_their_alternatives(local: LocalModel, server: Server) -> None:
    tokenizer, module = local.engine.tokenizer, local.engine.module
    ids = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        expected = torch.log_softmax(module(torch.tensor([ids])).logits[0, -1].double(), -1)
    _, made = server.chat(max_tokens=4, logprobs=True, top_logprobs=7)
    listed = made["choices"][0]["logprobs"]["content"]
    assert len(listed) == 1, "of the first token only"
    best, tokens = expected.topk(7)
    assert [t["logprob"] for t in listed[0]["top_logprobs"]] == pytest.approx(best.tolist(), abs=1e-4)
    assert [t["token"] for t in listed[0]["top_logprobs"]] == [tokenizer.decode([t]) for t in tokens]
    assert listed[0]["token"] == tokenizer.decode([tokens[0]])
    assert listed[0]["bytes"] == list(listed[0]["token"].encode())
    assert listed[0]["logprob"] == pytest.approx(float(best[0]), abs=1e-4)
    for seed in range(5):  # sampled: what was drawn is named, whether or not it is listed
        _, made = server.chat(max_tokens=1, logprobs=True, top_logprobs=1, temperature=3, seed=seed)
        drawn = local.engine.generate([Prompt(tuple(ids))], Sampling(3.0, 1, seed=seed), "f")[0].ids
        token = made["choices"][0]["logprobs"]["content"][0]
        assert len(token["top_logprobs"]) == 1
        if drawn:
            assert token["token"] == tokenizer.decode(list(drawn))
            assert token["logprob"] == pytest.approx(float(expected[drawn[0]]), abs=1e-4)
    assert server.chat(max_tokens=2)[1]["choices"][0]["logprobs"] is None
    assert server.chat(max_tokens=2, logprobs=True)[1]["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_stop_strings_and_lengths(local: LocalModel, server: Server) -> None:
    whole = server.chat(max_tokens=9)[1]["choices"][0]["message"]["content"].split()
    for stop in (whole[4], [whole[6], whole[4]]):
        choice = server.chat(max_completion_tokens=9, stop=stop)[1]["choices"][0]
        assert choice["message"]["content"] == " ".join(whole[: whole.index(whole[4])])
        assert choice["finish_reason"] == "stop"
    made = server.chat()[1]
    assert made["usage"]["completion_tokens"] <= 256
    with serving(local, max_tokens=3) as short:
        assert short.chat()[1]["usage"]["completion_tokens"] == 3


def test_text_parts_are_joined(server: Server) -> None:
    parts = [{"type": "text", "text": "Who was"}, {"type": "text", "text": " there?"}]
    messages = [{"role": "user", "content": parts}]
    assert server.chat(messages=messages, max_tokens=4)[1]["choices"] == server.chat(max_tokens=4)[1]["choices"]
    history = [*TALK, {"role": "assistant", "content": "a dog", "tool_calls": None, "refusal": None}, *TALK]
    assert server.chat(messages=history, max_tokens=4)[0] == 200


def test_bare_completions(local: LocalModel, server: Server) -> None:
    client = server.client()
    tokens = local.engine.tokenizer("Once upon", add_special_tokens=False).input_ids
    first, second = local.engine.generate([Prompt((1, *tokens)), Prompt((1, 9))], Sampling(max_new_tokens=16), "f")
    one = f" {first.text}"  # decoded by itself it loses the blank after the prompt
    made = client.completions.create(model="m", prompt="Once upon", temperature=0)
    assert made.choices[0].text == one and made.usage.prompt_tokens == len(tokens) + 1
    assert made.usage.completion_tokens == len(first.ids) and made.object == "text_completion"
    for prompt, texts in (
        ([1, 9], [second.text]),
        ([[1, *tokens], [1, 9]], [one, second.text]),
        (["Once upon"], [one]),
    ):
        assert [c.text for c in client.completions.create(model="m", prompt=prompt, temperature=0).choices] == texts
    pair = client.completions.create(model="m", prompt=["Once upon", "a dog"], temperature=0, n=2, max_tokens=3)
    assert [c.index for c in pair.choices] == [0, 1, 2, 3] and pair.choices[0].text == pair.choices[1].text
    assert pair.usage.prompt_tokens == len(tokens) + 1 + 3 and pair.usage.completion_tokens == 12
    chunks = list(client.completions.create(model="m", prompt="Once upon", temperature=0, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == one


def test_models_and_health(server: Server) -> None:
    assert [m.id for m in server.client().models.list()] == ["m"]
    assert server.client().models.retrieve("m").owned_by == "evenhand"
    assert server.fetch("/v1/models")[1]["data"][0]["max_model_len"] == 1024
    assert server.fetch("/health") == (200, {"status": "ok"})


# ------------------------------------------------------------------------------------------------- mitigated models


def test_a_mitigated_model_is_served_with_all_its_turns(demo: LocalModel) -> None:
    mitigated = SelfDebias().apply(demo)
    asked = say(*open_ended(8))
    expected = mitigated.generate(asked, Sampling(max_new_tokens=12))
    with serving(mitigated, name="debiased") as server:
        served = evenhand.load(f"endpoint:{server.url}#debiased").generate(asked, Sampling(max_new_tokens=12))
        assert [r.text for r in served] == [r.text for r in expected]
        assert [r.usage.prompt_tokens for r in served] == [r.usage.prompt_tokens for r in expected]
        one_turn = [r.usage.prompt_tokens for r in demo.generate(asked)]
        assert all(r.usage.prompt_tokens > n for r, n in zip(served, one_turn, strict=True))
        body = {"model": "debiased", "messages": TALK}
        status, refused = server.post("/v1/chat/completions", {**body, "logprobs": True})
        assert status == 400 and "no log-probabilities" in refused["error"]["message"]
        status, refused = server.post("/v1/completions", {"model": "debiased", "prompt": "a"})
        assert status == 400 and "/v1/chat/completions" in refused["error"]["message"]


def test_a_method_that_leaves_replies_alone_keeps_log_probabilities(local: LocalModel) -> None:
    wrapped = Mitigated(local, Untouched(), choose=local.choose)
    with serving(wrapped, name="m") as server:
        assert server.chat(max_tokens=1, logprobs=True)[0] == 200
        assert server.post("/v1/completions", {"model": "m", "prompt": "dog"})[0] == 200


def test_what_cannot_write_cannot_be_served() -> None:
    with pytest.raises(MissingAbilityError, match="cannot 'generate'"):
        app_module.build_app(ScriptedModel(abilities=frozenset({"choose"})))


# ------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "'system', 'developer', 'user' or 'assistant'"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [*TALK, {"role": "assistant", "content": "x"}]}, "the assistant's"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "'text'"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, *TALK]}, "tool_calls"),
        ({"messages": [{"role": "user", "content": "x\udc00"}]}, "half a character"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"n": 0}, "n: "),
        ({"n": 1000}, "n: "),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"top_logprobs": 3}, "logprobs=true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 0.5}, "'presence_penalty' is not supported"),
        ({"tools": [{"type": "function"}]}, "'tools' is not supported"),
        ({"response_format": {"type": "json_object"}}, "'response_format' is not supported"),
        ({"top_k": 40}, "'top_k' is not supported"),
        ({"temprature": 0.5}, "'temprature' is not supported"),
    ],
)
def test_bodies_that_cannot_be_followed_are_refused(server: Server, change: dict[str, Any], said: str) -> None:
    status, body = server.chat(**change)
    assert status == 400 and set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert said in body["error"]["message"] and body["error"]["type"] == "invalid_request_error"
    assert "Traceback" not in str(body) and "pydantic" not in str(body)


def test_values_that_ask_for_nothing_are_accepted(server: Server) -> None:
    nothing = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "tools": [], "user": "u", "top_k": -1}
    nothing |= {"response_format": {"type": "text"}, "seed": None, "stop": None, "metadata": {"a": "b"}, "best_of": 1}
    assert server.chat(max_tokens=2, **nothing)[0] == 200


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'"x"', b"\xff"])
def test_no_json_is_refused(server: Server, content: bytes) -> None:
    status, body = server.post("/v1/chat/completions", content)
    assert status == 400 and body["error"]["message"]


def test_a_web_page_cannot_post_here_unasked(server: Server) -> None:
    """Browsers send plain text to other places without asking them first, JSON they do not."""
    body = json.dumps({"model": "m", "messages": TALK}).encode()
    assert server.fetch("/v1/chat/completions", body, {"Content-Type": "text/plain"})[0] == 400


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([10**6], "token id 1000000 is not in the vocabulary"),
        ([-1], "-1"),
        ([], "at least one"),
        ([[]], "no token"),
        (5, "prompt"),
        ("\ud800", "half a character"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(server: Server, prompt: Any, said: str) -> None:
    status, body = server.post("/v1/completions", {"model": "m", "prompt": prompt})
    assert status == 400 and said in body["error"]["message"]


def test_unknown_models_routes_and_verbs(server: Server) -> None:
    status, body = server.chat(model="n")
    assert status == 404 and body["error"]["code"] == "model_not_found" and "Known: m" in body["error"]["message"]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        server.client().models.retrieve("org/n")
    assert server.fetch("/v1/nothing")[1]["error"]["message"] == "GET /v1/nothing: Not Found"
    assert server.fetch("/v1/chat/completions")[0] == 405
    assert server.fetch("/docs")[0] == server.fetch("/openapi.json")[0] == 404


def test_what_does_not_fit_the_context_is_refused_and_the_rest_is_not(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        texts = ["dog", "dog " * 2000, "cat", "cat " * 1020]
        outcomes = list(pool.map(lambda t: server.chat(messages=[{"role": "user", "content": t}], max_tokens=9), texts))
    assert [status for status, _ in outcomes] == [200, 400, 200, 400]
    refusal = outcomes[1][1]["error"]
    assert refusal["code"] == "context_length_exceeded" and "the context has 1024" in refusal["message"]
    with pytest.raises(openai.BadRequestError, match="lower max_tokens"):
        server.client().chat.completions.create(model="m", messages=TALK, max_tokens=5000)


class Failing(ScriptedModel):
    """Fails for what it is told to fail for."""

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        self.dialogues += dialogues
        for dialogue in dialogues:
            said = dialogue.messages[-1].content
            if said == "bug":
                raise ZeroDivisionError("secret detail")
            if said == "upstream":
                raise EndpointError("the server behind it is down")
            if said == "settings":
                raise SettingsError("the chat template refuses this dialogue")
        return [Reply(None if d.messages[-1].content == "none" else "fine", note="busy") for d in dialogues]


def test_errors_of_the_model_reach_their_own_client_only() -> None:
    with serving(Failing(), name="m") as server:

        def ask(text: str) -> tuple[int, Any]:
            return server.chat(messages=[{"role": "user", "content": text}])

        texts = ["ok", "bug", "upstream", "settings", "none", "ok"] * 4
        with ThreadPoolExecutor(24) as pool:
            outcomes = list(pool.map(ask, texts))
        expected = {"ok": 200, "bug": 500, "upstream": 502, "settings": 400, "none": 500}
        assert [status for status, _ in outcomes] == [expected[t] for t in texts]
        for text, (_, body) in zip(texts, outcomes, strict=True):
            assert "secret detail" not in str(body) and "Traceback" not in str(body), text
        assert "chat template" in outcomes[3][1]["error"]["message"] and "busy" in outcomes[4][1]["error"]["message"]
        assert outcomes[1][1]["error"]["type"] == "server_error"


# ------------------------------------------------------------------------------------------------------------- keys


def test_a_key_is_asked_for(local: LocalModel) -> None:
    with serving(local, key=KEY) as server:
        assert [m.id for m in server.client(KEY).models.list()] == ["m"]
        for sent in (None, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, f"Basic {KEY}", "Bearer \xe9", "Bearer", ""):
            for path in ("/v1/models", "/v1/models/m"):
                status, body = server.fetch(path, None, {} if sent is None else {"Authorization": sent})
                assert status == 401 and body["error"]["code"] == "invalid_api_key", sent
                assert KEY not in str(body)
        assert server.post("/v1/chat/completions", b"{")[0] == server.fetch("/nothing")[0] == 401
        assert server.chat()[0] == 401 and server.post("/v1/completions", {"broken": 1})[0] == 401
        with pytest.raises(openai.AuthenticationError):
            server.client("wrong").chat.completions.create(model="m", messages=TALK)
        assert (
            server.post(
                "/v1/chat/completions",
                {"model": "m", "messages": TALK, "max_tokens": 1},
                {"Authorization": f"bearer {KEY}"},
            )[0]
            == 200
        )
        assert server.fetch("/health")[0] == 200


# ------------------------------------------------------------------------------------------------------ many at once


def test_parallel_requests_get_what_each_alone_gets(demo_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = LocalModel.generate

    def counted(self: LocalModel, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        sizes.append(len(dialogues))
        return real(self, dialogues, sampling)

    monkeypatch.setattr(LocalModel, "generate", counted)
    prompts = open_ended(24)
    client = demo_server.client()

    def ask(i: int) -> str:
        knobs: dict[str, Any] = {"temperature": 0} if i % 2 else {"temperature": 1.0, "seed": i % 3}
        messages = [{"role": "user", "content": prompts[i]}]
        made = client.chat.completions.create(model="demo", messages=messages, max_tokens=10 + i % 2, **knobs)
        return str(made.choices[0].message.content)

    alone = [ask(i) for i in range(len(prompts))]
    assert sizes == [1] * len(prompts)
    sizes.clear()
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(ask, range(len(prompts))))
    assert together == alone and sum(sizes) == len(prompts) and len(sizes) < len(prompts)


class Held(ScriptedModel):
    """Answers once it is let go; says when it began."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        self.began.set()
        self.go.wait(600)
        return super().generate(dialogues, sampling)


def test_a_client_that_goes_away_does_not_hurt_the_others() -> None:
    model = Held()

    def leave(server: Server, text: str, after: Callable[[], object]) -> None:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
        head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
        with socket.create_connection(server.socket.getsockname()) as connection:
            connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode())
            after()
        seen(server)

    def seen(server: Server) -> None:
        """What was sent before is taken note of: the server has answered others since."""
        assert [server.fetch("/health")[0] for _ in range(5)] == [200] * 5

    with serving(model, name="m") as server:
        leave(server, "leaves while it is answered", after=lambda: model.began.wait(600))
        assert model.began.is_set()
        leave(server, "leaves while it waits", after=lambda: seen(server))
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(server.chat) for _ in range(3)]
            model.go.set()
            assert [w.result(600)[0] for w in waiting] == [200] * 3
        assert server.fetch("/health")[0] == 200
        said = [d.messages[-1].content for d in model.dialogues]
        assert "leaves while it waits" not in said and said.count("Who was there?") == 3


# ------------------------------------------------------------------------------------------------- the command line


def test_the_command_serves_and_says_how(tmp_path: Any) -> None:
    environment = {**os.environ, "SERVE_KEY": KEY, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "evenhand.cli.app", "serve", "demo", "--method", "self_debias", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--key-env", "SERVE_KEY", "--name", "mine"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        url = next(word for word in lines[0].split() if word.startswith("http://127.0.0.1:"))
        assert lines[1].startswith(f"curl {url}/chat/completions") and "Bearer $SERVE_KEY" in lines[1]
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
        assert [m.id for m in client.models.list()] == ["mine"]
        said = subprocess.run(["bash", "-c", lines[1]], capture_output=True, text=True, env=environment, check=True)
        assert json.loads(said.stdout)["choices"][0]["message"]["role"] == "assistant"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0 and not errors and KEY not in "".join([*lines, rest, errors])


def test_commands_that_cannot_be_followed_say_why() -> None:
    def refused(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, ["serve", *arguments])
        assert isinstance(done.exception, EvenhandError)
        return str(done.exception)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen at 127.0.0.1 port {port}" in refused("demo", "--port", port)
    said = refused("demo", "--key-env", KEY)
    assert "key_env takes the name" in said and KEY not in said
    assert "cannot 'generate'" in refused("demo-mlm")
    assert "self_debias" in refused("demo", "--method", "self_debiass")


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch, local: LocalModel) -> None:
    from evenhand.integrations.openai_server import serve

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SettingsError, match=r"pip install 'evenhand\[serve\]'"):
        serve(local)


def test_what_is_said_at_the_start(local: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.integrations.openai_server import server as module

    said: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)

    def lines(model: Model, **options: Any) -> list[str]:
        said.clear()
        module.serve(model, port=0, say=said.append, **options)
        return said

    assert len(lines(local)) == 2 and '"model": "m"' in said[1]
    assert any("anybody" in line for line in lines(local, host="0.0.0.0"))
    wrapped = Mitigated(local, Untouched(), choose=local.choose)
    assert any("none changes no written replies" in line for line in lines(wrapped))
    assert len(lines(SelfDebias().apply(local))) == 2
