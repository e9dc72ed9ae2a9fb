"""A run against an endpoint that fails for some items: those stay open, the rest is scored, a second run asks them."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evenhand.core.run_folder import RunFolder
from evenhand.evaluation.bbq import BBQ
from evenhand.evaluation.mmlu import MMLU
from evenhand.experiment.comparison import compare
from evenhand.experiment.subsampling import subsample
from evenhand.models import endpoint_preflight
from evenhand.models.loading import load
from evenhand.prompting.rendering import LETTERS, as_dialogue
from evenhand.report import Report

KEY = "sk-this-must-never-be-written"
OTHERS = {"A": 0.9, "B": 0.1}
"""Probabilities of the first token where a test gives none, as for the look that comes first."""
BAD = ("station", "market", "museum", "garden", "train", "lunch")


class Server(ThreadingHTTPServer):
    """Answers (A); fails for prompts that hold a bad word, in three ways."""

    failing = True
    silent = False
    """Whether it gives no log-probabilities."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.first: dict[str, dict[str, float]] = {}
        """Probabilities of the first token, by prompt."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        self.server.asked[prompt] += 1
        bad = next((word for word in BAD if word in prompt), "") if self.server.failing else ""
        if bad in BAD[:2]:
            self.reply(500, b"{}")
        elif bad in BAD[2:4]:
            self.reply(429, b"{}", {"Retry-After": "0"})
        elif bad:
            self.reply(200, b"<html>no json")
        else:
            choice: dict[str, Any] = {
                "index": 0,
                "message": {"role": "assistant", "content": "(A)"},
                "finish_reason": "stop",
            }
            if body.get("logprobs") and not self.server.silent:
                top = [{"token": t, "logprob": math.log(p)} for t, p in self.server.first.get(prompt, OTHERS).items()]
                choice["logprobs"] = {"content": [{"token": "(", "logprob": -1.0, "top_logprobs": top}]}
            usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
            made = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }
            self.reply(200, json.dumps(made).encode())

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_open_items_are_counted_and_asked_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENHAND_API_KEY", KEY)
    spec = f"endpoint:http://127.0.0.1:{server.server_port}/v1#m"

    def run():  # type: ignore[no-untyped-def]
        model = load(spec, retries=1, backoff=0.001, name="m")
        report = compare(
            model, "none", "bbq(source=demo)", out=tmp_path, show_progress=False, replicates=200, limit=288
        )
        return {r.metric: r for r in report.records if r.group == "overall"}

    bbq = BBQ(source="demo")
    asked = subsample(bbq.load(), 288, 0, bbq.stratum)
    lost = [i for i in asked if any(word in f"{i.question.context} {i.question.question}" for word in BAD)]
    first = run()
    assert first["unparsed"].value == first["unanswered"].value == pytest.approx(len(lost) / 288)
    assert 50 < len(lost) < 250
    assert first["accuracy_ambiguous"].n == sum(not i.disambiguated for i in asked if i not in lost)
    assert (
        first["accuracy_min_ambiguous"].value
        < first["accuracy_ambiguous"].value
        < first["accuracy_max_ambiguous"].value
    )
    answered = {prompt for prompt in server.asked if not any(word in prompt for word in BAD)}
    server.failing = False
    server.asked.clear()
    second = run()
    assert second["unparsed"].value == 0.0 and second["position_1"].value == 1.0
    assert not answered & set(server.asked), "what was answered is not asked again"
    server.asked.clear()
    run()
    assert not server.asked
    written = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    assert KEY.encode() not in written


@pytest.mark.parametrize(
    ("form", "accuracy", "mass", "unparsed"),
    [
        (lambda letter: letter.lower(), 1.0, 0.99, 0.0),
        (lambda letter: f"{letter}.", 1.0, 0.99, 0.0),
        (lambda letter: f" {letter}", 1.0, 0.99, 0.0),
        (lambda letter: chr(ord(letter) - ord("A") + 0xFF21), 1.0, 0.99, 0.0),
        (lambda letter: "(", 0.0, 0.0, 1.0),
        (lambda letter: "Well", 0.0, 0.0, 1.0),
    ],
    ids=["small", "full stop", "blank", "full-width", "bracket", "word"],
)
def test_a_server_that_is_right_is_scored_as_right_or_as_undecided(
    server: Server, tmp_path: Path, form: Any, accuracy: float, mass: float, unparsed: float
) -> None:
    """The right letter has p .99 in some form; wrong ones have .01 together, in the form that was always read."""
    server.failing = False
    for item in MMLU(source="demo").load():
        at = item.question.order.index(item.right)
        wrong = {LETTERS[n]: 0.01 / 3 for n in range(len(item.question.options)) if n != at}
        prompt = as_dialogue(item.question, "letters").messages[-1].content
        server.first[prompt] = {form(LETTERS[at]): 0.99, **wrong}
    model = load(f"endpoint:http://127.0.0.1:{server.server_port}/v1#m", retries=0, answer_by="letters", name="m")
    report = compare(model, "none", "mmlu(source=demo)", out=tmp_path, show_progress=False, replicates=200, limit=40)
    got = {r.metric: r.value for r in report.records if r.group == "overall"}
    assert got["accuracy"] == accuracy
    assert got["letter_mass"] == pytest.approx(mass + 0.01), "undecided items are in the mean"
    assert got["unparsed"] == unparsed


def test_answers_whose_letters_a_server_left_out_are_counted(server: Server, tmp_path: Path) -> None:
    """The letter A alone is listed, with .7; the others may share the .1 that are left: .1 / .8 of the options'."""
    server.failing = False
    for item in MMLU(source="demo").load():
        prompt = as_dialogue(item.question, "letters").messages[-1].content
        server.first[prompt] = {"A": 0.7, "Well": 0.2}
    model = load(f"endpoint:http://127.0.0.1:{server.server_port}/v1#m", retries=0, answer_by="letters", name="m")
    report = compare(model, "none", "mmlu(source=demo)", out=tmp_path, show_progress=False, replicates=200, limit=40)
    said = "40 of 40 answers by letters leave more than 1% of the options' probability unread (at most 0.125)"
    assert [v.text for v in report.untold() if v.text.startswith(said)], "views show what no verdict says"
    stored = RunFolder(tmp_path).read_manifest()["usage"][0]["remarks"]
    assert len(stored) == 1 and stored[0].startswith(said)


LOOKS = tuple(talk.messages[-1].content for talk in (endpoint_preflight.PROMPT, endpoint_preflight.LETTERS))


def looked(server: Server) -> list[int]:
    return [server.asked[prompt] for prompt in LOOKS]


def test_a_server_is_looked_at_once_and_not_again_when_the_run_is_resumed(server: Server, tmp_path: Path) -> None:
    def run() -> Report:
        spec = f"endpoint:http://127.0.0.1:{server.server_port}/v1#m"
        model = load(spec, retries=0, answer_by="letters", name="m")
        return compare(model, "none", "mmlu(source=demo)", out=tmp_path, show_progress=False, replicates=200, limit=40)

    first = run()
    assert looked(server) == [1, 1] and list(server.asked)[:2] == list(LOOKS), "before anything long"
    found = RunFolder(tmp_path).read_manifest()["models"]["m"]["preflight"]
    assert found["new_tokens"] == 2 and not found["thinks"]
    assert first.manifest["usage"][0]["asked_anew"] == 40, "the look is none of the answers"
    lost = next((tmp_path / "answers").iterdir())
    lost.unlink()
    server.asked.clear()
    run()
    assert not server.asked, "answers and look are in the cache"


def test_a_server_that_gives_no_log_probabilities_is_not_asked_by_letters(server: Server, tmp_path: Path) -> None:
    server.silent = True
    model = load(f"endpoint:http://127.0.0.1:{server.server_port}/v1#m", retries=0, answer_by="letters", name="m")
    report = compare(model, "none", "mmlu(source=demo)", out=tmp_path, show_progress=False, limit=40)
    failed = [r.note for r in report.records if r.status == "failed"]
    assert failed and all("cannot be read by letters: the server gave no log-probabilities" in note for note in failed)
    assert looked(server) == [1, 1], "once for all cells"
    assert len(server.asked) == 2, "no item was asked"
    server.asked.clear()
    unlooked = load(
        f"endpoint:http://127.0.0.1:{server.server_port}/v1#m(preflight=False)",
        retries=0,
        answer_by="letters",
        name="m",
    )
    compare(unlooked, "none", "mmlu(source=demo)", show_progress=False, limit=40)
    assert looked(server) == [0, 0] and len(server.asked) == 40
