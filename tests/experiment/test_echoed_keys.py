"""A server that sends the key back, wherever it can: no file, message, log or record has it."""

from __future__ import annotations

import base64
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from evenhand.core.text_output import visible
from evenhand.errors import EvenhandError
from evenhand.evaluation.bbq import BBQ
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Dialogue
from evenhand.models.loading import load

pytest.importorskip("openai")

KEY = "sk-echo/ed+Zq8Wm3Xv7Tn2Lp5"
ECHOES = {
    "plain": KEY,
    "url": quote(KEY, safe=""),
    "basic": base64.b64encode(f"someone:{KEY}".encode()).decode(),
    "escaped": json.dumps(json.dumps(KEY)).replace("/", "\\/"),
}
PIECES = [KEY[i : i + 8] for i in range(len(KEY) - 7)]
CODED = base64.b64encode(b"eone:" + KEY.encode()).decode()
PIECES += [CODED[i : i + 12] for i in range(8, len(CODED) - 16)]


class Echoing(ThreadingHTTPServer):
    """Answers with the key in everything, or refuses with it."""

    status, echo, spelled_out = 200, KEY, False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.keys: set[str] = set()

    @property
    def place(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Echoing

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        echo = self.server.echo
        self.server.keys.add(self.headers["Authorization"])
        if self.server.status != 200:
            return self.reply(
                self.server.status, {"error": {"message": f"bad key {echo}!", "code": echo, "type": echo}}
            )
        message = {"role": "assistant", "content": f"(A) since {echo}", "reasoning_content": f"hm, {echo}"}
        top = [{"token": "A", "logprob": -0.1}, {"token": echo, "logprob": -3.0}]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "stop",
            "logprobs": {"content": [{"top_logprobs": top}]},
        }
        return self.reply(200, {"choices": [choice], "model": echo, echo: echo, "usage": {"completion_tokens": 3}})

    def do_GET(self) -> None:
        echo = self.server.echo
        self.reply(200, {"data": [{"id": f"model-{echo}", "owned_by": f"owner-{echo}", "aliases": [echo]}]})

    def reply(self, status: int, body: Any) -> None:
        content = json.dumps(body)
        if self.server.spelled_out:
            content = content.replace(KEY, "".join(f"\\u{ord(c):04x}" for c in KEY))
        self.send_response(status, f"Key {quote(self.server.echo)} {self.server.echo}")
        self.send_header("X-Key", quote(self.server.echo))
        self.send_header("Retry-After", self.server.echo)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Echoing]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EVENHAND_API_KEY", KEY)
    running = Echoing()
    threading.Thread(target=lambda: running.serve_forever(poll_interval=0.01), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def leaks(text: str) -> list[str]:
    return [piece for piece in PIECES if piece in text or piece.replace("/", "\\/") in text]


def test_the_pieces_are_those_of_every_echo() -> None:
    assert all(leaks(echo) for echo in ECHOES.values())


@pytest.mark.parametrize("spelling", [*ECHOES, "characters"])
@pytest.mark.parametrize("answer_by", ["letters", "generation"])
def test_a_run_keeps_no_key(
    server: Echoing,
    spelling: str,
    answer_by: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.echo, server.spelled_out = ECHOES.get(spelling, KEY), spelling == "characters"
    spec = f"endpoint:{server.place}?api-key={quote(KEY, safe='')}#m"
    monkeypatch.setattr(sys, "argv", ["evenhand", "compare", "-m", spec])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        report = compare(
            spec, "none", BBQ(source="demo"), limit=4, out=tmp_path, answer_by=answer_by, retries=0, show_progress=True
        )
        server.status = 400
        failed = compare(spec, "none", BBQ(source="demo"), limit=8, out=tmp_path / "b", preflight=False, retries=0)
    said = capfd.readouterr()
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    told = [*map(str, warned), caplog.text, said.out, said.err, str(report.records), str(failed.records)]
    told += [str(report), report.markdown(), json.dumps(report.manifest)]
    for text in (*told, *(f.read_bytes().decode("utf-8", "replace") for f in kept)):
        assert not leaks(text)
    assert server.keys == {f"Bearer {KEY}"} and len(kept) > 6
    assert any(b"[secret]" in file.read_bytes() for file in kept), "the echo came, and was masked"


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500])
@pytest.mark.parametrize("spelling", list(ECHOES))
def test_no_error_has_the_key(server: Echoing, status: int, spelling: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.status, server.echo = status, ECHOES[spelling]
    model = load(f"endpoint:{server.place}#m", retries=0)
    for ask in (lambda: model.generate([Dialogue(()).user("x")])[0].note, lambda: model.preflight(letters=True)):
        try:
            said = str(ask())
        except EvenhandError as error:
            said = "".join(map(repr, (error, error.__cause__, error.__context__)))
        assert str(status) in visible(said) and not leaks(said)
    assert not leaks(caplog.text)


def test_names_of_models_that_a_server_lists_are_masked(server: Echoing) -> None:
    server.status = 404
    with pytest.raises(EvenhandError, match=r"no model 'm'.*\[secret\]") as refused:
        load(f"endpoint:{server.place}#m", retries=0).preflight()
    assert not leaks(str(refused.value))
