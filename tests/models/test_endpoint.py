"""EndpointModel against a real server on this machine that speaks the chat completions protocol."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import evenhand
from evenhand.core.answer_cache import answer_cache
from evenhand.core.registry import build_method
from evenhand.errors import EndpointError, MissingAbilityError, SettingsError
from evenhand.interfaces import Dialogue, Message, Question, Sampling
from evenhand.models.endpoint import EndpointModel, open_endpoint

openai_client = pytest.importorskip("evenhand.models.endpoint_client")

KEY = "sk-verysecret-0123456789"
Answer = tuple[int, dict[str, str], bytes]
Script = Callable[[str, int], Answer]


def ok(text: str | None, **more: Any) -> Answer:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **more}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return 200, {}, json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def error(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    return status, headers or {}, json.dumps({"error": {"message": message, **more}}).encode()


def first_token(**probabilities: float) -> dict[str, Any]:
    """`logprobs` field; `_A` stands for " A"."""
    top = [{"token": t.replace("_", " "), "logprob": math.log(p)} for t, p in probabilities.items()]
    return {"logprobs": {"content": [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]}}


class Server:
    """Answers as `script(prompt, times asked before)` says and remembers everything it received."""

    def __init__(self) -> None:
        self.script: Script = lambda prompt, before: ok(f"echo {prompt}")
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.owner = ""
        """What its list of models says in `owned_by`; without one there is no list."""
        self.card: dict[str, Any] = {}
        """What else its list says of the model."""
        self.running = self.most = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                with lock:
                    before = server.asked[prompt]
                    server.asked[prompt] += 1
                    server.bodies.append(body)
                    server.headers.append({k.lower(): v for k, v in self.headers.items()})
                    server.paths.append(self.path)
                    server.running += 1
                    server.most = max(server.most, server.running)
                try:
                    status, headers, content = server.script(prompt, before)
                finally:
                    with lock:
                        server.running -= 1
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                server.paths.append(self.path)
                cards = {"data": [{"id": "other"}, {"id": "my-model", "owned_by": server.owner, **server.card}]}
                content = json.dumps(cards).encode() if server.owner else b"{}"
                self.send_response(200 if server.owner else 501)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=lambda: self._http.serve_forever(poll_interval=0.01), daemon=True)
        self._thread.start()

    def model(self, **options: Any) -> EndpointModel:
        return open_endpoint(f"{self.url}#my-model", **{"backoff": 0.001, **options})

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("EVENHAND_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.stop()


def say(*texts: str, draw: int = 0) -> list[Dialogue]:
    return [Dialogue((Message("user", text),), draw=draw) for text in texts]


def question(**more: Any) -> Question:
    return Question("q", "Who?", ("zero", "one", "two"), **more)


# ------------------------------------------------------------------------------------------------ normal answers


def test_replies_come_in_order_with_their_usage(server: Server) -> None:
    def script(prompt: str, before: int) -> Answer:
        time.sleep(0.03 if prompt in "03" else 0.0)
        return ok(f" echo {prompt} ", finish_reason="length" if prompt == "5" else "stop")

    server.script = script
    replies = server.model().generate(say(*"0123456789"))
    assert [r.text for r in replies] == [f"echo {i}" for i in range(10)]
    assert [r.finished for r in replies] == [i != 5 for i in range(10)]
    assert replies[0].usage == evenhand.Usage(1, 7, 3)


def test_sends_messages_and_sampling(server: Server) -> None:
    talk = Dialogue((Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "v")))
    server.model().generate([talk], Sampling(0.7, 33, 0.9, seed=4, stop=("END",)))
    body = server.bodies[0]
    assert body["messages"] == [{"role": m.role, "content": m.content} for m in talk.messages]
    sent = {k: body[k] for k in ("model", "temperature", "top_p", "max_tokens", "stop")}
    assert sent == {"model": "my-model", "temperature": 0.7, "top_p": 0.9, "max_tokens": 33, "stop": ["END"]}
    assert isinstance(body["seed"], int) and 0 <= body["seed"] < 2**31


def test_identical_requests_are_sent_once_and_draws_only_when_sampling(server: Server) -> None:
    dialogues = [*say("x"), *say("x"), *say("x", draw=1), *say("x", draw=2)]
    assert [r.text for r in server.model().generate(dialogues)] == ["echo x"] * 4
    assert server.asked == {"x": 1} and "seed" not in server.bodies[0]
    server.model().generate(dialogues, Sampling(temperature=1.0))
    server.model().generate(dialogues, Sampling(temperature=1.0, seed=1))
    seeds = [b["seed"] for b in server.bodies[1:]]
    assert len(seeds) == len(set(seeds)) == 6


def test_chooses_by_a_written_reply(server: Server) -> None:
    replies = {"one letter": "(B)", "refusal": "I would rather not say."}
    server.script = lambda prompt, before: ok(next(v for k, v in replies.items() if k in prompt))
    asked = [question(context=k, shown=(1, 2, 0)) for k in replies]
    first, second = server.model().choose(asked)
    assert (first.decision, first.status, first.reply) == (2, "answered", "(B)")
    assert (second.decision, second.status) == (None, "unparsed")
    assert server.bodies[0]["max_tokens"] == 64


def test_nothing_to_ask(server: Server) -> None:
    assert server.model().generate([]) == [] and server.model().choose([]) == []
    assert not server.bodies


# ------------------------------------------------------------------------------------------------ letters


def test_letters_give_probabilities_by_identity(server: Server) -> None:
    """Shown (1, 2, 0) is no inverse of itself: A is option 1, B is option 2, C is option 0."""
    server.script = lambda prompt, before: ok("A", **first_token(A=0.3, _A=0.1, B=0.2, The=0.1, _C=0.05, C=0.15))
    choice = server.model(answer_by="letters").choose([question(shown=(1, 2, 0))])[0]
    assert choice.decision == 1 and choice.status == "answered"
    assert choice.probabilities == pytest.approx((0.2 / 0.8, 0.4 / 0.8, 0.2 / 0.8))
    assert choice.mass == pytest.approx(0.8)
    assert choice.usage == evenhand.Usage(1, 7, 3)
    sent = {k: server.bodies[0][k] for k in ("logprobs", "top_logprobs", "max_tokens")}
    assert sent == {"logprobs": True, "top_logprobs": 20, "max_tokens": 1}
    assert server.bodies[0]["temperature"] == 0, "nothing is drawn"
    assert choice.reply == "", "the token that came along is no answer"


def test_all_three_probabilities_differ_by_identity(server: Server) -> None:
    server.script = lambda prompt, before: ok("A", **first_token(A=0.5, B=0.3, C=0.1))
    choice = server.model().choose([question(shown=(1, 2, 0), answer_by="letters")])[0]
    assert choice.probabilities == pytest.approx((0.1 / 0.9, 0.5 / 0.9, 0.3 / 0.9))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ok("Well", **first_token(Well=0.7, Hm=0.2, D=0.1)), "no option letter"),
        (ok("A"), "no log-probabilities"),
        (ok("A", logprobs=None), "no log-probabilities"),
        (ok("A", logprobs={"content": []}), "no log-probabilities"),
    ],
)
def test_letters_that_cannot_be_read_are_unparsed(server: Server, answer: Answer, said: str) -> None:
    server.script = lambda prompt, before: answer
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert (choice.decision, choice.probabilities, choice.status) == (None, None, "unparsed")
    assert said in choice.note


FORMS = [
    "B",
    " B",
    "b",
    " b",
    "B.",
    "b.",
    "(B",
    " (b",
    "(B)",
    "B)",
    "[B]",
    "B:",
    "**B",
    "**B**",
    '"B"',
    "B\n",
    "\u2581B",
    "\u0120b",
    "\uff22",
    "\uff42",
    "\uff22\uff0e",
    "\uff08B",
    "\uff08\uff22\uff09",
    "\u24b7",
    "B\u3001",
    "\u3010B\u3011",
]
"""Tokens that can only be the letter B; the last are raw vocabulary, full-width, circled and with CJK marks."""


@pytest.mark.parametrize("token", FORMS)
def test_a_letter_counts_in_every_form(server: Server, token: str) -> None:
    """A server that is right with p .99 was read as impossible, and the answer taken from the rest."""
    server.script = lambda prompt, before: ok(token, **first_token(**{token: 0.99, "A": 0.006, "C": 0.002}))
    choice = server.model(answer_by="letters").choose([question(shown=(1, 2, 0))])[0]
    assert (choice.decision, choice.status, choice.reply) == (2, "answered", "")
    assert choice.probabilities == pytest.approx((0.002 / 0.998, 0.006 / 0.998, 0.99 / 0.998))
    assert choice.mass == pytest.approx(0.998) and len(server.bodies) == 1


@pytest.mark.parametrize("letter", ["a", "A", "c", "C", "(a", "A."])
def test_the_letter_a_counts_as_the_others_do(server: Server, letter: str) -> None:
    server.script = lambda prompt, before: ok(letter, **first_token(**{letter: 0.9, "b": 0.05}))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert choice.decision == (2 if letter in "cC" else 0) and len(server.bodies) == 1


def test_the_forms_of_a_letter_add_up(server: Server) -> None:
    forms = {"B": 0.1, "b": 0.11, "(B": 0.06, "_B.": 0.05, "\uff22": 0.03, "A": 0.3, "D": 0.2, "Better": 0.1}
    server.script = lambda prompt, before: ok("A", **first_token(**forms))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert choice.decision == 1 and choice.mass == pytest.approx(0.65)
    assert choice.probabilities == pytest.approx((0.3 / 0.65, 0.35 / 0.65, 0.0))


@pytest.mark.parametrize("word", ["B-", "BB", "Bb", "By", "B1", "D", "d", "\u0411", "1", "(", "I", "A'"])
def test_what_is_no_letter_of_the_question_does_not_count(server: Server, word: str) -> None:
    server.script = lambda prompt, before: ok("", **first_token(**{word: 0.4, "C": 0.6}))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert choice.decision == 2 and choice.mass == pytest.approx(0.6)


@pytest.mark.parametrize(("mass", "status"), [(0.03, "unparsed"), (0.499, "unparsed"), (0.51, "answered")])
def test_less_than_half_of_the_mass_decides_nothing(server: Server, mass: float, status: str) -> None:
    """C may lie outside the 20 that are listed: what is seen of A and B must not decide against it."""
    others = {f"word{n}": (1 - mass) / 19 for n in range(18)}
    server.script = lambda prompt, before: ok("word0", **first_token(A=mass / 3, B=mass / 1.5, **others))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert (choice.status, choice.decision, choice.reply) == (status, 1 if status == "answered" else None, "")
    assert choice.mass == pytest.approx(mass)
    if status == "unparsed":
        assert choice.probabilities is None and f"mass of {mass:.3g}" in choice.note and "generation" in choice.note


LEFT = {f"word{n}": 0.001 for n in range(18)}


@pytest.mark.parametrize(
    ("listed", "unread"),
    [
        ({"A": 0.981, **LEFT, "x": 0.001}, None),  # nothing is left over for B and C
        ({"A": 0.9, **LEFT, "x": 0.001}, 0.002 / 0.902),  # each has at most the .001 of the least listed
        ({"A": 0.9, "x": 0.04, "y": 0.01}, 0.02 / 0.92),
        ({"A": 0.9, "x": 0.04, "y": 0.03}, 0.03 / 0.93),  # both together have at most what is left, .03
        ({"A": 0.5, "_A": 0.3, "B": 0.04, "C": 0.01, "y": 0.005}, 0.01 / 0.86),  # " B" and " C" are missing
        ({"A": 0.6, "(": 0.3, "y": 0.001}, 0.302 / 0.902),  # any letter may follow the bracket
        ({"A": 0.7, "B": 0.1, "C": 0.1, "y": 0.01}, None),  # every form of every letter is there
    ],
)
def test_letters_that_a_list_leaves_out_have_a_bound(
    server: Server, listed: dict[str, float], unread: float | None
) -> None:
    server.script = lambda prompt, before: ok("A", **first_token(**listed))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert (choice.decision, choice.status) == (0, "answered")
    assert choice.unread == (None if unread is None else pytest.approx(unread))
    said = f"up to {unread:.3g} of the options' probability" if unread is not None and unread > 0.01 else ""
    assert choice.note.startswith(said) and bool(choice.note) == bool(said)


def test_a_list_that_leaves_the_decision_open_says_so(server: Server) -> None:
    """A has .30; of B only "(B" is listed, with .2, and "B" and " B" may have up to .12 each."""
    listed = {"A": 0.16, "_A": 0.14, "(B": 0.2, "x": 0.12}
    server.script = lambda prompt, before: ok("A", **first_token(**listed))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert choice.decision == 0 and choice.note.startswith("another option may be the likeliest")
    # A lacks "(A", B two forms, C all three; together they have no more than the .38 that are left
    assert choice.unread == pytest.approx(0.38 / 0.88)


def test_what_follows_a_bracket_has_a_bound_as_well(server: Server) -> None:
    """Of the .9 on the bracket .81 are read as C, and up to .9 * .05 may be A or B."""
    server.script, server.owner = opened("(", {"C": 0.9, "x": 0.05}), "vllm"
    choice = server.model(answer_by="letters").choose([question()])[0]
    # first list: B .04, "(" .9, so A and C have at most .04 each; what is left is .06
    assert choice.decision == 2 and choice.mass == pytest.approx(0.04 + 0.81)
    unread = 0.06 + 0.9 * 0.05
    assert choice.unread == pytest.approx(unread / (0.85 + unread))


def test_no_listed_letter_is_undecided_whatever_the_bound(server: Server) -> None:
    server.script = lambda prompt, before: ok("x", **first_token(x=0.3, y=0.3))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert (choice.decision, choice.status, choice.unread) == (None, "unparsed", None)


def opened(bracket: str, after: dict[str, float]) -> Script:
    """A vLLM server whose replies begin with a bracket, and which continues them where it is told to."""
    first, second = first_token(**{bracket: 0.9, "B": 0.04}), first_token(**after)

    def script(prompt: str, before: int) -> Answer:
        return ok(prompt, **(second if prompt in ("(", "[", "**") else first))

    return script


@pytest.mark.parametrize("bracket", ["(", " (", "\uff08", "[", "**"])
def test_a_bracket_alone_is_read_past_where_the_server_continues_a_text(server: Server, bracket: str) -> None:
    server.script, server.owner = opened(bracket, {"A": 0.1, "B)": 0.1, "c": 0.7}), "vllm"
    choice = server.model(answer_by="letters").choose([question(shown=(1, 2, 0))])[0]
    assert choice.decision == 0 and choice.mass == pytest.approx(0.04 + 0.9 * 0.9)
    assert choice.probabilities == pytest.approx((0.63 / 0.85, 0.09 / 0.85, 0.13 / 0.85))
    assert choice.usage == evenhand.Usage(2, 14, 6)
    first, second = server.bodies
    assert "continue_final_message" not in first
    assert second["continue_final_message"] is True and second["add_generation_prompt"] is False
    assert second["messages"][:-1] == first["messages"] and second["temperature"] == 0
    assert second["messages"][-1] == {"role": "assistant", "content": {" (": "(", "\uff08": "("}.get(bracket, bracket)}


@pytest.mark.parametrize("owner", ["", "openai", "llamacpp"])
def test_a_bracket_alone_is_not_read_past_elsewhere(server: Server, owner: str) -> None:
    """Such a server could take "(" as a whole turn, and its next token for that of another one."""
    server.script, server.owner = opened("(", {"C": 0.99}), owner
    choices = server.model(answer_by="letters").choose([question(context=c) for c in "xy"])
    assert [(c.decision, c.status, c.reply) for c in choices] == [(None, "unparsed", "")] * 2
    assert choices[0].mass == pytest.approx(0.04) and "0.9 is on an opening '('" in choices[0].note
    assert len(server.bodies) == 2 and server.paths.count("/v1/models") == 1


def test_what_follows_a_bracket_is_undecided_too_where_it_is_no_letter(server: Server) -> None:
    server.script, server.owner = opened("(", {"(": 0.9, "A": 0.1}), "vllm"
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert (choice.decision, choice.status) == (None, "unparsed") and choice.mass == pytest.approx(0.13)


def test_a_bracket_is_left_alone_where_the_letters_decide(server: Server) -> None:
    server.script, server.owner = (lambda p, n: ok("B", **first_token(**{"B": 0.6, "(": 0.4}))), "vllm"
    assert server.model(answer_by="letters").choose([question()])[0].mass == pytest.approx(0.6)
    assert len(server.bodies) == 1 and "/v1/models" not in server.paths


FARMERS = ("A farmer", "Nobody", "The baker")
NINE = tuple(f"option {n}" for n in range(9))


@pytest.mark.parametrize(
    ("options", "token", "reply", "decision"),
    [
        (FARMERS, "A", "A", 0),
        (FARMERS, "A", "A farmer", 0),
        (FARMERS, "A", "A good question.", None),
        (FARMERS, " a", "a man I know", None),
        (NINE, "I", "I", 8),
        (NINE, "I", "I'm sorry, but I cannot say.", None),
    ],
)
def test_a_letter_that_may_be_a_word_is_told_by_a_written_reply(
    server: Server, options: tuple[str, ...], token: str, reply: str, decision: int | None
) -> None:
    def script(prompt: str, before: int) -> Answer:
        return ok("never this", **first_token(**{token: 0.9, "B": 0.02})) if before == 0 else ok(reply)

    server.script = script
    choice = server.model(answer_by="letters").choose([Question("q", "Who?", options)])[0]
    assert choice.decision == decision and choice.reply == "" and choice.usage.calls == 2
    assert "logprobs" not in server.bodies[1] and server.bodies[1]["temperature"] == 0
    if decision is None:
        assert choice.status == "unparsed" and "is a word" in choice.note and choice.mass == pytest.approx(0.02)


@pytest.mark.parametrize("status", [400, 500])
def test_a_second_request_that_fails_leaves_the_item_unanswered(server: Server, status: int) -> None:
    server.script = lambda p, before: error(status, "boom") if before else ok("I", **first_token(I=0.9))
    choice = server.model(answer_by="letters", retries=0).choose([Question("q", "Who?", NINE)])[0]
    assert choice.status == "unanswered" and "boom" in choice.note


def test_what_is_no_list_of_log_probabilities_is_not_read(server: Server) -> None:
    logits = {"A": math.exp(3.0), "B": math.exp(2.0)}
    divided = {"A": 1.0, "B": math.exp(-400.0), "C": math.exp(-700.0)}
    for given, said in ((logits, "not log-probabilities"), (divided, "temperature")):
        server.script = lambda p, before, given=given: ok("A", **first_token(**given))  # type: ignore[misc]
        choice = server.model(answer_by="letters").choose([question()])[0]
        assert (choice.decision, choice.status, choice.reply) == (None, "unparsed", "") and said in choice.note


def test_a_token_that_is_listed_twice_counts_once(server: Server) -> None:
    made = first_token(A=0.55, B=0.3)
    made["logprobs"]["content"][0]["top_logprobs"].append({"token": "A", "logprob": math.log(0.55)})
    server.script = lambda p, before: ok("A", **made)
    assert server.model(answer_by="letters").choose([question()])[0].mass == pytest.approx(0.85)


def listing(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    top = [{"token": token, "logprob": logprob} for token, logprob in pairs]
    return {"logprobs": {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": top}]}}


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([("A", 0.0)], "a single first token"),
        ([("B", -0.5), ("A", float("nan")), ("x", -7.0)], "no log-probabilities"),
        ([("B", -0.5), ("A", None)], "no log-probabilities"),
        ([("B", False), ("A", -20.0)], "no log-probabilities"),
        ([("B", "high"), ("A", "-0.5")], "no log-probabilities"),
    ],
)
def test_a_list_that_hides_a_letter_decides_nothing(server: Server, pairs: list[tuple[Any, Any]], said: str) -> None:
    """A was left out where its number was nan, and B then looked certain."""
    server.script = lambda p, before: ok("A", **listing(*pairs))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert (choice.decision, choice.status) == (None, "unparsed") and said in choice.note


def test_a_token_that_is_listed_again_with_another_rounding_counts_once(server: Server) -> None:
    pairs = [("B", -1.2), ("B", -1.2001), ("A", -1.0)]
    server.script = lambda p, before: ok("B", **listing(*pairs))
    choice = server.model(answer_by="letters").choose([question()])[0]
    assert choice.decision == 0 and choice.mass == pytest.approx(math.exp(-1.0) + math.exp(-1.2))
    different = [("B", -1.2), ("B", -1.5), ("A", -1.0)]
    server.script = lambda p, before: ok("B", **listing(*different))
    assert server.model(answer_by="letters").choose([question()])[0].decision == 1


@pytest.mark.parametrize("spec", ["self_debias", "intent_self_correction(rounds=1,threshold=0)"])
def test_methods_put_in_the_letter_that_was_decided(server: Server, spec: str) -> None:
    """Not the text that came along with the log-probabilities. It is the reasoning and a critique here, too."""
    server.script = lambda prompt, before: ok("4: A is wrong", **first_token(b=0.9, A=0.05))
    model = build_method(spec).apply(server.model(answer_by="letters"))
    choice = model.choose([question(shown=(1, 2, 0))])[0]
    assert choice.decision == 2 and choice.reply == ""
    asked = [b for b in server.bodies if b.get("logprobs")]
    assert len(asked) == 2 and asked[1]["messages"][-2] == {"role": "assistant", "content": "B"}
    assert {b["temperature"] for b in server.bodies} == {0}


@pytest.mark.parametrize("spec", ["self_debias", "intent_self_correction"])
def test_methods_put_nothing_in_where_the_letters_could_not_be_read(server: Server, spec: str) -> None:
    server.script = lambda prompt, before: ok("A", **first_token(Well=0.9, A=0.05))
    choice = build_method(spec).apply(server.model(answer_by="letters")).choose([question()])[0]
    assert (choice.decision, choice.status, choice.reply) == (None, "unparsed", "") and "0.05" in choice.note
    assert len([b for b in server.bodies if b.get("logprobs")]) == 1
    assert all(m["content"] for b in server.bodies for m in b["messages"]), "no empty turns"


def test_letters_are_cached_unless_the_server_gave_no_logprobs(server: Server, tmp_path: Path) -> None:
    answers = [ok("A"), ok("A", **first_token(A=0.25, B=0.5))]
    server.script = lambda prompt, before: answers[before]
    with answer_cache(tmp_path / "c.sqlite"):
        runs = [server.model(answer_by="letters").choose([question()])[0] for _ in range(3)]
    assert [r.decision for r in runs] == [None, 1, 1] and runs[1] == runs[2]
    assert runs[1].probabilities == pytest.approx((1 / 3, 2 / 3, 0.0))


def test_ways_may_be_mixed(server: Server) -> None:
    server.script = lambda prompt, before: ok("(C)", **first_token(B=0.9))
    by_letters = question(context="l", answer_by="letters")
    choices = server.model().choose([question(context="g"), by_letters, question(context="h")])
    assert [c.decision for c in choices] == [2, 1, 2]


@pytest.mark.parametrize("way", ["text", "text_per_token", "text_with_end"])
def test_option_texts_cannot_be_scored(server: Server, way: str) -> None:
    with pytest.raises(MissingAbilityError, match="generation"):
        server.model().choose([question(answer_by=way)])
    with pytest.raises(MissingAbilityError, match="generation"):
        server.model(answer_by=way)
    with pytest.raises(MissingAbilityError):
        server.model().score([])
    assert server.model().abilities == {"choose", "generate"}


# ------------------------------------------------------------------------------------------------ failures


def test_a_prompt_that_always_fails_is_unanswered_and_the_rest_is_not(server: Server, tmp_path: Path) -> None:
    broken = True
    server.script = lambda p, before: error(500, "boom") if p == "bad" and broken else ok(p)
    with answer_cache(tmp_path / "c.sqlite") as cache:
        replies = server.model(retries=2).generate(say("a", "bad", "b"))
        assert [r.text for r in replies] == ["a", None, "b"]
        assert "500" in replies[1].note and "boom" in replies[1].note and "tries: 3" in replies[1].note
        assert server.asked == {"a": 1, "bad": 3, "b": 1}
        assert cache is not None and len(cache) == 2
        broken = False
        assert [r.text for r in server.model().generate(say("a", "bad", "b"))] == ["a", "bad", "b"]
    assert server.asked == {"a": 1, "bad": 4, "b": 1}


def test_cached_replies_are_the_same_replies(server: Server, tmp_path: Path) -> None:
    server.script = lambda p, before: ok(f" {p}é ", finish_reason="length")
    with answer_cache(tmp_path / "c.sqlite"):
        assert server.model().generate(say("a")) == server.model().generate(say("a"))
    assert server.asked == {"a": 1}


@pytest.mark.parametrize(
    "bad",
    [
        (200, {}, b"\xff\x00garbage"),
        (200, {"Content-Type": "text/html"}, b"<html>busy</html>"),
        (200, {}, b""),
        (200, {}, b"[]"),
        (200, {}, b"null"),
        (200, {}, b'{"id": "1"}'),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": null}]}'),
        (200, {}, b'{"choices": [{"message": {"content": 5}}]}'),
        ok(None),
        error(408, "slow"),
        error(409, "conflict"),
        error(429, "busy", {"Retry-After": "0.01"}),
        error(503, "down"),
    ],
)
def test_transient_failures_are_tried_again(server: Server, bad: Answer) -> None:
    server.script = lambda p, before: bad if before < 2 else ok("fine")
    assert server.model().generate(say("x"))[0].text == "fine"
    assert server.asked["x"] == 3


def test_garbage_for_ever_is_unanswered(server: Server) -> None:
    server.script = lambda p, before: ok(None, finish_reason="tool_calls")
    choice = server.model(retries=1).choose([question()])[0]
    assert choice.status == "unanswered" and "no text" in choice.note and "tool_calls" in choice.note


def test_a_refusal_in_its_own_field_is_a_reply(server: Server) -> None:
    server.script = lambda p, before: ok(None, message={"content": None, "refusal": "I cannot."})
    assert server.model().generate(say("x"))[0].text == "I cannot."


def test_counts_that_are_none_are_not_added(server: Server) -> None:
    usage = {"prompt_tokens": -4, "completion_tokens": True}
    choice = {"finish_reason": "stop", "message": {"content": "A"}}
    server.script = lambda p, before: (200, {}, json.dumps({"choices": [choice], "usage": usage}).encode())
    used = server.model().generate([Dialogue(()).user("a")])[0].usage
    assert (used.calls, used.prompt_tokens, used.new_tokens) == (1, 0, 0) and used.new_tokens is not True


def test_a_reply_that_ended_with_an_error_is_asked_for_again(server: Server) -> None:
    server.script = lambda p, before: ok("A", finish_reason="error" if before == 0 else "stop")
    assert server.model(backoff=0.01).generate([Dialogue(()).user("a")])[0].text == "A" and server.asked["a"] == 2


def test_half_a_surrogate_pair_can_be_written(server: Server) -> None:
    server.script = lambda p, before: ok("A\ud800 \U0001f600")
    assert server.model().generate([Dialogue(()).user("a")])[0].text == "A\ufffd \U0001f600"


def test_usage_may_be_missing(server: Server) -> None:
    server.script = lambda p, before: (200, {}, b'{"choices": [{"message": {"content": ""}}], "usage": null}')
    reply = server.model().generate(say("x"))[0]
    assert reply.text == "" and reply.usage == evenhand.Usage(1, 0, 0)


def test_retry_after_is_honoured(server: Server) -> None:
    server.script = lambda p, before: error(429, "wait", {"Retry-After": "0.4"}) if before == 0 else ok("fine")
    began = time.monotonic()
    assert server.model().generate(say("x"))[0].text == "fine"
    assert 0.4 <= time.monotonic() - began < 300


def test_retry_after_is_read_and_capped() -> None:
    read = openai_client.retry_after
    assert read("7") == 7 and read("86400") == openai_client.LONGEST_WAIT == 60
    assert read(None) == read("soon") == read("-3") == read("nan") == 0
    assert 25 < read(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert read(formatdate(time.time() - 30, usegmt=True)) == 0


def test_no_server_and_a_silent_server_leave_items_unanswered(server: Server) -> None:
    server.script = lambda p, before: (time.sleep(0.5), ok("late"))[1]
    reply = server.model(timeout=0.05, retries=0).generate(say("x"))[0]
    assert reply.text is None and "in time" in reply.note
    nobody = Server()
    nobody.stop()
    replies = nobody.model(retries=1).generate(say("x", "y"))
    assert [r.text for r in replies] == [None, None] and nobody.url in replies[0].note


def test_a_request_that_is_wrong_for_one_item_is_not_repeated(server: Server) -> None:
    server.script = lambda p, before: error(400, "maximum context length is 8") if p == "long" else ok(p)
    replies = server.model().generate(say("a", "long", "b"))
    assert [r.text for r in replies] == ["a", None, "b"] and "maximum context length" in replies[1].note
    assert server.asked["long"] == 1


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        (error(401, "Incorrect API key provided"), "EVENHAND_API_KEY"),
        (error(403, "not allowed"), "not allowed"),
        (error(404, "no such model"), "my-model"),
        (error(429, "pay", code="insufficient_quota"), "credit"),
        ((307, {"Location": "http://127.0.0.1:9/steal"}, b""), "URL"),
    ],
)
def test_what_no_retry_can_mend_ends_the_run(server: Server, tmp_path: Path, answer: Answer, fix: str) -> None:
    server.script = lambda p, before: ok(p) if p in ("0", "1", "2") else answer
    prompts = [str(i) for i in range(200)]
    with answer_cache(tmp_path / "c.sqlite") as cache:
        with pytest.raises(EndpointError, match=fix):
            server.model(concurrency=1).generate(say(*prompts))
        assert cache is not None and len(cache) == 3
    assert server.asked["3"] == 1 and len(server.asked) < 100


def test_concurrency_is_used_and_limited(server: Server) -> None:
    together = threading.Barrier(3)  # nobody is answered before three are asked
    server.script = lambda p, before: (together.wait(600), ok(p))[1]
    server.model(concurrency=3).generate(say(*map(str, range(12))))
    assert server.most == 3


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupt_stops_at_once_and_keeps_what_came(server: Server, tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    release, opened = threading.Event(), list[Any]()

    def script(prompt: str, before: int) -> Answer:
        if int(prompt) < 4:
            return ok(prompt)
        if prompt == "4":
            while len(opened[0]) < 4 and not release.is_set():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
        release.wait(600)
        return ok(prompt)

    server.script = script
    began = time.monotonic()
    with answer_cache(tmp_path / "c.sqlite") as cache:
        opened.append(cache)
        with pytest.raises(KeyboardInterrupt):
            server.model(concurrency=2).generate(say(*map(str, range(50))))
        assert cache is not None and len(cache) == 4
    assert time.monotonic() - began < 300  # and not as long as the server takes
    workers = [t for t in threading.enumerate() if t.name == "evenhand-endpoint"]
    assert workers and all(t.daemon for t in workers)  # the interpreter does not wait for them
    release.set()
    for thread in workers:
        thread.join(60)
    assert len(server.asked) <= 6


def test_works_inside_a_running_event_loop(server: Server) -> None:
    import asyncio

    async def cell() -> str | None:
        return server.model().generate(say("x"))[0].text

    assert asyncio.run(cell()) == "echo x"


# ------------------------------------------------------------------------------------------------ settings, secrets


def test_settings_that_cannot_be_used(server: Server) -> None:
    for rest in ("http://localhost:8000/v1", "localhost:8000#m", "http://#m", "http://h:99999/v1#m", "#m", ""):
        with pytest.raises(SettingsError, match="endpoint:http://localhost:8000/v1#my-model"):
            open_endpoint(rest)
    with pytest.raises(SettingsError, match="concurrency"):
        server.model(concurency=3)
    with pytest.raises(SettingsError, match="must be"):
        server.model(concurrency=0)
    with pytest.raises(SettingsError, match="temperature"):
        server.model(sampling={"temprature": 1})
    with pytest.raises(SettingsError, match="letters"):
        server.model(answer_by="leters")


def test_a_missing_package_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "evenhand.models.endpoint_client")
    monkeypatch.delattr("evenhand.models.endpoint_client")
    with pytest.raises(SettingsError, match=r"pip install 'evenhand\[endpoint\]'"):
        server.model()


def test_key_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(**options: Any) -> str:
        server.model(**options).generate(say("x"))
        return server.headers[-1]["authorization"]

    assert sent() == "Bearer none"
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    assert sent() == "Bearer second"
    monkeypatch.setenv("EVENHAND_API_KEY", "first")
    assert sent() == "Bearer first"
    monkeypatch.setenv("OTHER", "third")
    assert sent(key_env="OTHER") == "Bearer third"
    for wrong in (KEY, "NOT_SET"):
        with pytest.raises(SettingsError, match="key_env") as caught:
            server.model(key_env=wrong)
        assert wrong not in str(caught.value)


def test_saved_and_loaded_it_is_the_same(server: Server, tmp_path: Path) -> None:
    spec = f"endpoint:{server.url}/#org/my-model:7b(answer_by=letters,concurrency=2)"
    model = evenhand.load(spec, sampling=Sampling(0.5, stop=("x",)))
    folder = model.save(tmp_path / "m")
    again = evenhand.load(folder, trust_folder=True)
    assert isinstance(again, EndpointModel) and folder == tmp_path / "m"
    assert (again.facts(), again.fingerprint, again.sampling) == (
        model.facts(),
        model.fingerprint,
        Sampling(0.5, stop=("x",)),
    )
    assert again.source == f"endpoint:{server.url}#org/my-model:7b" and again.name == "org/my-model:7b"
    assert json.loads((folder / "evenhand.json").read_text())["kind"] == "endpoint"
    assert again.facts()["fingerprint_of"] == "url and model name"
    json.dumps(again.facts())


def test_fingerprint_tells_models_servers_and_ways_apart(server: Server) -> None:
    base = server.model().fingerprint
    others = [
        open_endpoint(f"{server.url}#other"),
        open_endpoint(f"{server.url}/x#my-model"),
        server.model(answer_by="letters"),
        server.model(sampling=Sampling(0.5)),
    ]
    assert len({base, *(m.fingerprint for m in others)}) == 5
    assert server.model(concurrency=1, timeout=5, name="n").fingerprint == base
    assert open_endpoint(f"{server.url}?v=1#my-model").fingerprint == base


def test_secrets_are_sent_but_shown_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EVENHAND_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    place = f"127.0.0.1:{server.port}/v1"
    keyed = open_endpoint(f"http://{place}?api-key=quer%20y-secret&v=2#m", retries=0, server="other")
    basic = open_endpoint(f"http://alice:pass%40word-secret@{place}#m", retries=0, server="other")
    told = ""

    def script(prompt: str, before: int) -> Answer:
        answers = {"500": error(500, told), "html": (500, {}, told.encode()), "junk": (200, {}, told.encode())}
        answers["odd"] = (200, {}, json.dumps({"choices": told}).encode())
        return answers.get(prompt) or (error(int(prompt), told) if prompt.isdigit() else ok("ok"))

    server.script = script
    shown: list[Any] = []
    with answer_cache(tmp_path / "c.sqlite"):
        for model, echoed in (
            (keyed, f"x{KEY}x | quer y-secret | quer%20y-secret | api-key=quer%20y-secret&v=2"),
            (basic, f"{KEY} | alice | pass@word-secret | pass%40word-secret | alice:pass%40word-secret"),
        ):
            told = f"{'-' * (openai_client.QUOTED - 8)}{KEY} is cut at this length" if model is basic else echoed
            shown += [r.note for r in model.generate(say("fine", "400", "500", "html", "junk", "odd"))]
            told = echoed
            shown += [r.note for r in model.generate(say("400", "500", "html", "junk", "odd"))]
            shown += [model.name, model.source, model.fingerprint, model.facts(), repr(model), model.load_options]
            for status in ("401", "403", "404"):
                with pytest.raises(EndpointError) as caught:
                    model.generate(say(status))
                shown += [str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
            model.save(tmp_path / model.fingerprint)
    for wrong in (f"ftp://alice:pass@{place}#m", f"http://alice:pass@{place}"):
        with pytest.raises(SettingsError) as refused:
            open_endpoint(wrong)
        shown += [str(refused.value), repr(refused.value.__context__)]
    shown.append(caplog.text)
    shown += [f.read_bytes().decode("utf-8", "replace") for f in tmp_path.rglob("*") if f.is_file()]
    text = "\n".join(map(str, shown))
    for secret in (KEY[:8], "alice", "pass", "quer y", "quer%20y", "api-key", "YWxpY2U6"):
        assert secret not in text, secret
    assert "[secret]" in text and any(r.name.startswith("httpx") for r in caplog.records)
    # and yet they arrived
    assert server.paths[0] == "/v1/chat/completions?api-key=quer%20y-secret&v=2"
    assert {h["authorization"] for h in server.headers} == {f"Bearer {KEY}", "Basic YWxpY2U6cGFzc0B3b3JkLXNlY3JldA=="}


def test_a_key_never_follows_a_redirect(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENHAND_API_KEY", KEY)
    other = Server()
    server.script = lambda p, before: (307, {"Location": f"{other.url}/chat/completions"}, b"")
    with pytest.raises(EndpointError):
        server.model().generate(say("x"))
    other.stop()
    assert not other.bodies


def test_a_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{server.port}")
    monkeypatch.setenv("no_proxy", "elsewhere")
    model = open_endpoint("http://server.invalid/v1#m", retries=0, server="other")
    assert model.generate(say("x"))[0].text == "echo x"
    assert server.paths == ["http://server.invalid/v1/chat/completions"]
