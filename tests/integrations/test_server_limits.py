"""What one client may take of `evenhand serve`: large bodies, long texts, slow connections, full queues."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from evenhand.cli import app as cli
from evenhand.errors import SettingsError
from evenhand.interfaces import Dialogue, Model, Reply, Sampling
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models.tiny import tiny_model
from evenhand.testing import ScriptedModel

pytest.importorskip("uvicorn")
pytest.importorskip("openai")

import uvicorn
from tests.integrations.test_openai_server import TALK, Held, Server

from evenhand.integrations import openai_server
from evenhand.integrations.openai_server import connections
from evenhand.integrations.openai_server.answering import Job
from evenhand.integrations.openai_server.app import build_app
from evenhand.integrations.openai_server.bodies import BodyLimits
from evenhand.integrations.openai_server.gathering import FullError, Gatherer
from evenhand.integrations.openai_server.limits import MIB, Limits

SMALL = Limits(max_body_mib=1, max_waiting_mib=2)
DEFAULTS = Limits()
PATIENT = 30.0
"""Seconds after which a test gives up; what it waits for comes far sooner."""


class LimitedServer(Server):
    """An application with the connections of `serve`."""

    def __init__(self, model: Model, limits: Limits, **options: Any) -> None:
        app = build_app(model, name="m", limits=limits, **options)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.url = f"{self.place}/v1"
        self.uvicorn = uvicorn.Server(connections.configured(app, limits))
        self.thread = threading.Thread(target=lambda: self.uvicorn.run(sockets=[self.socket]), daemon=True)
        self.thread.start()
        while not self.uvicorn.started:
            time.sleep(0.01)

    def connect(self, sent: bytes = b"") -> socket.socket:
        line = socket.create_connection(self.socket.getsockname(), timeout=PATIENT)
        line.sendall(sent)
        return line


@contextmanager
def limited(limits: Limits = DEFAULTS, model: Model | None = None, **options: Any) -> Iterator[LimitedServer]:
    running = LimitedServer(model or ScriptedModel(), limits, **options)
    try:
        yield running
    finally:
        running.stop()


def head(*more: str, path: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def chat(content: str, **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **more}).encode()


def posted(body: bytes) -> bytes:
    return head(f"Content-Length: {len(body)}") + body


def all_of(line: socket.socket) -> bytes:
    """Everything until the server closes the connection, or resets it."""
    came = b""
    with line, suppress(ConnectionResetError):
        while piece := line.recv(65536):
            came += piece
    return came


def reply_on(line: socket.socket) -> tuple[bytes, Any]:
    """Head and body of one reply, which has a Content-Length."""
    came = b""
    while b"\r\n\r\n" not in came:
        came += line.recv(65536)
    top, _, body = came.partition(b"\r\n\r\n")
    length = int(top.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += line.recv(65536)
    return top + b"\r\n", json.loads(body)


# ------------------------------------------------------------------------------------------------------------ bodies


class Fed:
    """An application behind the limits, and a client that sends chunk by chunk, without a network."""

    def __init__(self, limits: Limits, chunks: Sequence[bytes], announced: int | None = None) -> None:
        self.taken, self.reached, self.sent = 0, b"", list[Any]()
        self._chunks = chunks
        named = [] if announced is None else [(b"content-length", str(announced).encode())]
        asyncio.run(BodyLimits(self._app, limits)({"type": "http", "headers": named}, self._receive, self._send))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message["more_body"]
        self.reached = message["body"]

    async def _receive(self) -> Any:
        self.taken += 1
        return {
            "body": self._chunks[self.taken - 1],
            "type": "http.request",
            "more_body": self.taken < len(self._chunks),
        }

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


def test_a_body_is_refused_by_what_its_head_announces_before_anything_is_read() -> None:
    fed = Fed(SMALL, [b"x"], announced=MIB + 1)
    assert fed.sent[0]["status"] == 413 and fed.taken == 0 and not fed.reached
    assert b"1 MiB" in fed.sent[1]["body"]


def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_large() -> None:
    fed = Fed(SMALL, [b"x" * (MIB // 4)] * 40)
    assert fed.sent[0]["status"] == 413 and fed.taken == 5 and not fed.reached


def test_a_body_of_the_largest_size_is_handed_on_whole() -> None:
    chunks = [bytes([65 + i]) * (MIB // 4) for i in range(4)]
    assert Fed(SMALL, chunks, announced=MIB).reached == Fed(SMALL, chunks).reached == b"".join(chunks)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_costs_the_others_nothing(chunked: bool) -> None:
    """The same with 40 MB and the memory measured: benchmarks/torture_serve.py."""
    big = b'{"model": "m", "messages": "' + b"x" * (6 * MIB) + b'"}'
    framed = posted(big)
    if chunked:
        framed = head("Transfer-Encoding: chunked") + f"{len(big):x}\r\n".encode() + big + b"\r\n0\r\n\r\n"
    with limited(SMALL) as server, ThreadPoolExecutor(6) as pool:
        others = [pool.submit(server.chat) for _ in range(5)]
        line = server.connect(framed)
        assert line.recv(4096).startswith(b"HTTP/1.1 413 ")
        assert [o.result(PATIENT)[0] for o in others] == [200] * 5
        line.close()
        assert server.chat()[0] == 200


def test_bodies_of_all_open_requests_together_are_bounded() -> None:
    model = Held()
    held = chat("x", metadata={"pad": "x" * (MIB - 200)})
    with limited(SMALL, model) as server, ThreadPoolExecutor(2) as pool:
        first = [pool.submit(server.post, "/v1/chat/completions", held) for _ in range(2)]
        wait_for(lambda: len(model.dialogues) + len(server.uvicorn.server_state.tasks) >= 2 and model.began.is_set())
        assert retried(server, held, 429)["error"]["code"] == "server_busy"
        model.go.set()
        assert [f.result(PATIENT)[0] for f in first] == [200, 200]
        assert server.post("/v1/chat/completions", held)[0] == 200, "their room is free again"


def wait_for(done: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENT
    while not done():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def retried(server: Server, body: bytes, status: int) -> Any:
    """The refusal of a request; one that finds room, as those before it have not come so far, is given up."""
    until = time.monotonic() + PATIENT
    while time.monotonic() < until:
        line = socket.create_connection(server.socket.getsockname(), timeout=0.5)
        with line, suppress(TimeoutError):
            line.sendall(posted(body))
            top, told = reply_on(line)
            assert int(top.split()[1]) == status
            return told
    pytest.fail(f"no reply had the status {status}")


# ------------------------------------------------------------------------------------------------- parts and lengths


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("chat/completions", {"messages": TALK * 4}, "messages: 4 entries are more than the 3"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 4}]},
            "messages: 4 entries",
        ),
        ("chat/completions", {"messages": TALK, "stop": ["x"] * 4}, "stop: 4 entries"),
        ("completions", {"prompt": ["x"] * 4}, "prompt: 4 entries"),
        ("completions", {"prompt": [[1]] * 4}, "prompt: 4 entries"),
        ("chat/completions", {"messages": TALK, "n": 5}, "5 replies are asked for; this server takes at most 4"),
    ],
)
def test_bodies_of_too_many_parts_are_refused(path: str, body: dict[str, Any], said: str, tiny_server: Server) -> None:
    status, refusal = tiny_server.post(f"/v1/{path}", {"model": "m", **body})
    assert status == 400 and said in refusal["error"]["message"]


def test_as_many_parts_as_are_allowed_are_answered(tiny_server: Server) -> None:
    assert tiny_server.chat(messages=TALK * 3, max_tokens=1)[0] == 200
    assert tiny_server.post("/v1/completions", {"model": "m", "prompt": list(range(1, 9)), "max_tokens": 1})[0] == 200


@pytest.fixture(scope="module")
def tiny_server() -> Iterator[Server]:
    with limited(Limits(max_messages=3, max_queue=4), tiny_model(name="m")) as running:
        yield running


@pytest.mark.parametrize("mitigated", [False, True])
def test_a_text_far_beyond_the_context_is_not_tokenised(mitigated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenised: list[int] = []
    local = tiny_model(name="m")
    real = type(local.engine.tokenizer).__call__

    def counted(self: Any, text: Any, *given: Any, **named: Any) -> Any:
        tokenised.append(len(str(text)))
        return real(self, text, *given, **named)

    monkeypatch.setattr(type(local.engine.tokenizer), "__call__", counted)
    model: Model = SelfDebias().apply(local) if mitigated else local
    with limited(Limits(max_characters_per_token=4), model) as server:
        most = 4 * local.context_length
        halves = [{"role": "user", "content": "x" * (most // 2 + 1)}] * 2
        status, refusal = server.chat(messages=halves)
        assert status == 400 and refusal["error"]["code"] == "context_length_exceeded"
        assert f"{most + 2} characters are more than {most}" in refusal["error"]["message"]
        assert "1024 tokens" in refusal["error"]["message"] and not tokenised
        if not mitigated:
            status, refusal = server.post("/v1/completions", {"model": "m", "prompt": ["x", "x" * (most + 1)]})
            assert status == 400 and refusal["error"]["param"] == "prompt" and not tokenised
        assert server.chat(max_tokens=1)[0] == 200 and tokenised, "what may be long enough is looked at"


# ------------------------------------------------------------------------------------------------- slow connections


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/comp", head()[:-2]])
def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    with limited(Limits(head_seconds=0.3)) as server:
        assert not all_of(server.connect(sent))


def test_the_second_head_on_a_connection_has_the_same_time() -> None:
    with limited(Limits(head_seconds=0.5)) as server:
        line = server.connect(posted(chat("one")))
        assert reply_on(line)[0].startswith(b"HTTP/1.1 200 ")
        line.sendall(posted(chat("two")))
        assert reply_on(line)[0].startswith(b"HTTP/1.1 200 ")
        begun = time.monotonic()
        line.sendall(b"POST /v1")
        assert not all_of(line)
        assert time.monotonic() - begun < PATIENT / 2


def test_a_long_reply_is_not_taken_for_a_slow_head() -> None:
    model = Held()
    with limited(Limits(head_seconds=0.2, body_seconds=0.2, read_seconds=0.2), model) as server:
        line = server.connect(posted(chat("x")))
        time.sleep(1)
        model.go.set()
        assert reply_on(line)[0].startswith(b"HTTP/1.1 200 ")
        line.close()


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come_is_refused(framing: str) -> None:
    with limited(Limits(body_seconds=0.3)) as server:
        reply = all_of(server.connect(head(framing) + (b"{" if "Length" in framing else b"1\r\n{\r\n")))
        assert reply.startswith(b"HTTP/1.1 408 ") and b"within 0.3 seconds" in reply


def test_the_rest_of_a_refused_body_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REST_SECONDS", 0.3)
    with limited(SMALL) as server:
        assert all_of(server.connect(head(f"Content-Length: {2 * MIB}") + b"{")).startswith(b"HTTP/1.1 413 ")


class Talkative(ScriptedModel):
    """Writes far more than the buffers of a connection hold."""

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        words = {"much": 40_000, "some": 1_000}
        return [Reply("word " * words.get(d.messages[-1].content, 1)) for d in dialogues]


def test_a_stream_that_nobody_reads_ends(caplog: pytest.LogCaptureFixture) -> None:
    with limited(Limits(read_seconds=0.5), Talkative()) as server:
        line = server.connect(posted(chat("much", stream=True)))
        wait_for(lambda: server.uvicorn.server_state.connections)
        wait_for(lambda: not server.uvicorn.server_state.connections)
        assert server.chat()[0] == 200
        line.close()
    assert "Traceback" not in caplog.text


def test_a_stream_that_is_read_arrives_whole() -> None:
    with limited(Limits(read_seconds=0.5), Talkative()) as server:
        made = server.client().chat.completions.create(
            model="m", messages=[{"role": "user", "content": "some"}], stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in made) == "word " * 1_000


def test_too_many_connections_are_closed_at_once() -> None:
    with limited(Limits(max_connections=3)) as server:
        held = [server.connect() for _ in range(3)]
        wait_for(lambda: len(server.uvicorn.server_state.connections) == 3)
        assert not all_of(server.connect())
        for line in held:
            line.close()
        wait_for(lambda: not server.uvicorn.server_state.connections)
        assert server.chat()[0] == 200


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", ["head", "body", "stream"])
def test_no_traceback_where_a_client_hangs_up(sent: str, reset: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "uvicorn.error")
    whole = posted(chat("much", stream=True))
    with limited(Limits(), Talkative()) as server:
        line = server.connect({"head": head()[:-5], "body": whole[:-5], "stream": whole}[sent])
        if sent == "stream":
            line.recv(100)
        if reset:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()
        wait_for(lambda: not server.uvicorn.server_state.connections)
        wait_for(lambda: not server.uvicorn.server_state.tasks)
        assert server.chat()[0] == 200
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info], caplog.text


# ------------------------------------------------------------------------------------------------------- the queue


def test_a_full_queue_says_when_to_ask_again() -> None:
    model = Held()
    with limited(Limits(max_queue=2), model) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.chat)
        assert model.began.wait(PATIENT)
        second = pool.submit(server.chat)
        wait_for(lambda: len(server.uvicorn.server_state.tasks) == 2)
        refused = retried(server, chat("Who?", temperature=0), 429)
        line = server.connect(posted(chat("Who?")))
        top, told = reply_on(line)
        line.close()
        assert top.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1\r\n" in top.lower()
        assert told["error"]["type"] == "rate_limit_error" and told["error"] == refused["error"]
        assert "2 replies are waiting or being written" in told["error"]["message"]
        model.go.set()
        assert [f.result(PATIENT)[0] for f in (first, second)] == [200, 200]
        assert server.chat()[0] == 200


def test_jobs_are_taken_all_or_none_and_leave_the_line_when_nobody_waits() -> None:
    go, began = threading.Event(), threading.Event()
    seen: list[int] = []

    def answer(jobs: list[Job]) -> list[Any]:
        began.set()
        assert go.wait(PATIENT)
        seen.append(len(jobs))
        return [ValueError("no answer")] * len(jobs)

    gatherer, job = Gatherer(answer, max_queue=4), Job(Dialogue(()).user("x"), Sampling())
    (first,) = gatherer.submit([job])
    assert began.wait(PATIENT)
    waiting: list[Future[Any]] = gatherer.submit([replace(job, top=i) for i in range(3)])
    with pytest.raises(FullError) as full:
        gatherer.submit([job])
    assert full.value.waiting == 4
    assert waiting[0].cancel() and waiting[1].cancel()
    with pytest.raises(FullError):
        gatherer.submit([job] * 3)
    more = gatherer.submit([job] * 2)
    go.set()
    assert all(isinstance(f.exception(PATIENT), ValueError) for f in (first, waiting[2], *more))
    assert sum(seen) == 4
    gatherer.close()


# ------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "wrong", [{"max_body_mib": 0}, {"max_queue": 2.5}, {"read_seconds": -1}, {"max_messages": True}]
)
def test_limits_that_let_nobody_in_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))}=.* must be .*default"):
        Limits(**wrong)


def test_limits_are_read_from_a_line() -> None:
    assert Limits.parse("max_queue=7, read_seconds=1.5") == Limits(max_queue=7, read_seconds=1.5)
    assert Limits.parse("") == Limits()
    with pytest.raises(SettingsError, match=r"'max_que' is not a limit of the server\. Did you mean 'max_queue'"):
        Limits.parse("max_que=7")


def test_the_command_hands_its_limits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(openai_server, "serve", lambda model, **named: given.append(named["limits"]))
    done = CliRunner().invoke(cli.app, ["serve", "demo", "--limits", "max_body_mib=3"])
    assert done.exit_code == 0 and given == [Limits(max_body_mib=3)]


HOSTILE = [
    b'{"model": "m", "messages": ' + b"[" * 100_000,
    b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "\\udfff"}]}]}',
    b'{"model": "m", "\\ud800": 1, "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
    b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 5000 + b"}",
    b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": ' + b"9" * 30 + b"}",
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_bodies_are_refused_with_a_reason(
    number: int, tiny_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    status, body = tiny_server.post("/v1/chat/completions", HOSTILE[number])
    assert status == 400 and body["error"]["message"]
    assert "Traceback" not in caplog.text
