"""VllmModel against a server on this machine that speaks vLLM's completions protocol and runs plain forward passes."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import evenhand
from evenhand.core.answer_cache import answer_cache
from evenhand.core.registry import build_benchmark
from evenhand.errors import ContextTooLongError, EndpointError, EvenhandError, SettingsError
from evenhand.inference import Prompt, Request
from evenhand.inference.requests import continuation_request
from evenhand.interfaces import Dialogue, Message, Passage, Question, Sampling, Usage
from evenhand.models.demo import MODELS
from evenhand.models.local import LocalModel
from evenhand.models.tiny import WORDS, tiny_model
from evenhand.models.vllm import VllmModel, open_vllm
from evenhand.testing import check_method, questions

client = pytest.importorskip("evenhand.models.endpoint_client")

CLOSE = {"abs": 1e-4}
FLOOR = -9999.0
DOG = Passage(" little dog", "Who was a")


class Refused(Exception):
    """An error as vLLM sends it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Stub:
    """Does what `vllm serve` does with a request of this client, on a module in this process.

    `old` leaves out fields that came later: "logprob_token_ids", "return_token_ids", "prompt_logprobs".
    """

    def __init__(self, model: LocalModel, name: str = "m") -> None:
        self.name, self.length = name, 1024
        self.module, self.tokenizer = model.weights
        self.bodies: list[dict[str, Any]] = []
        self.old: set[str] = set()
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.shift = 0.0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=lambda: self.http.serve_forever(poll_interval=0.01), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        return [tuple(ids) for body in self.bodies for ids in body["prompt"]]

    def cards(self) -> dict[str, Any]:
        base = {"id": self.name, "object": "model", "root": "org/base", "parent": None, "max_model_len": self.length}
        adapter = {"id": "adapter", "object": "model", "root": "/adapters/x", "parent": self.name}
        return {"object": "list", "data": [base, adapter]}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.bodies.append(body)
            if self.refusals:
                status, headers = self.refusals.pop(0)
                raise Refused(status, json.dumps(headers))
        if body["model"] not in (self.name, "adapter"):
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if len(body.get("stop", [])) > 4:
            raise Refused(400, "too many stop strings")
        made = [self._one(ids, body) for ids in body["prompt"]]
        choices = [{"index": i, **choice} for i, choice in enumerate(made)]
        return {"object": "text_completion", "model": self.name, "choices": choices[::-1]}

    def _one(self, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        if len(ids) >= self.length:
            raise Refused(400, f"maximum context length is {self.length}, the prompt holds {len(ids)}")
        with self.lock:
            table = self._logprobs(ids)
            out = self._write(ids, body)
        if body.get("prompt_logprobs") is not None and "prompt_logprobs" not in self.old:
            given = [self._entry(table[p], t) for p, t in enumerate(ids[1:])]
            out["prompt_logprobs"] = [None, *given]
        if body.get("logprobs") is not None:
            chosen = [] if "logprob_token_ids" in self.old else body.get("logprob_token_ids") or []
            shown = [int(t) for t in chosen or table[-1].topk(body["logprobs"]).indices]
            top = {f"token_id:{t}": float(table[-1, t]) + self.shift for t in shown}
            out["logprobs"] = {"tokens": ["?"], "token_logprobs": [0.0], "top_logprobs": [top]}
        return out

    def _entry(self, row: torch.Tensor, token: int) -> dict[str, Any]:
        value = float(row[token])
        return {str(token): {"logprob": value if math.isfinite(value) else FLOOR, "rank": 1, "decoded_token": "?"}}

    def _logprobs(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return torch.log_softmax(self.module(torch.tensor([ids])).logits[0].float(), -1)

    def _write(self, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        """Greedy, or by the request's seed; the end token is among the ids that come back, not in the text."""
        new: list[int] = []
        reason, detail = "length", None
        generator = torch.Generator().manual_seed(body.get("seed", 0) % 2**32)
        ends = self.module.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        for _ in range(min(body["max_tokens"], self.length - len(ids))):
            row = self._logprobs(ids + new)[-1]
            drawn = body["temperature"] > 0 and body["max_tokens"] > 1
            at = torch.multinomial((row / body["temperature"]).exp(), 1, generator=generator) if drawn else row.argmax()
            new.append(int(at))
            if new[-1] in ends:
                reason = "stop"
                break
            if new[-1] in body.get("stop_token_ids", []):
                reason, detail = "stop", new[-1]
                break
            text = self.tokenizer.decode(new, skip_special_tokens=True)
            detail = next((s for s in body.get("stop", []) if s in text), None)
            if detail:
                reason = "stop"
                break
        out: dict[str, Any] = {"text": "not used", "finish_reason": reason, "stop_reason": detail}
        if body.get("return_token_ids") and "return_token_ids" not in self.old:
            out["token_ids"] = new
        return out


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(200, stub.cards())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self.answer(200, stub.complete(body))
            except Refused as error:
                headers = json.loads(str(error)) if str(error).startswith("{") else {}
                self.answer(error.status, {"error": {"message": str(error), "code": error.status}}, headers)

        def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            sent = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(sent)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture(autouse=True)
def _no_keys_no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVENHAND_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def local() -> LocalModel:
    return tiny_model(texts=["The quick brown fox. New words: seven, eight!"])


@pytest.fixture(scope="module")
def tokenizer(local: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    local.weights.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def stub(local: LocalModel) -> Iterator[Stub]:
    running = Stub(local)
    yield running
    running.stop()


@pytest.fixture
def model(stub: Stub, tokenizer: str) -> VllmModel:
    return opened(stub, tokenizer)


def opened(stub: Stub, tokenizer: str, **options: Any) -> VllmModel:
    return open_vllm(f"{stub.url}#{stub.name}", tokenizer=tokenizer, backoff=0.001, **options)


def say(*texts: str, draw: int = 0) -> list[Dialogue]:
    return [Dialogue((Message("user", text),), draw) for text in texts]


def asked_all_ways() -> list[Question]:
    from dataclasses import replace

    ways = ("letters", "text", "text_per_token", "text_with_end", "generation")
    orders = ((1, 0), (2, 0, 1), (3, 1, 0, 2))
    return [
        replace(q.reordered(orders[len(q.options) - 2]), answer_by=way)  # type: ignore[arg-type]
        for q in questions(6)
        for way in ways
    ]


# ------------------------------------------------------------------------------------------- as a local model answers


def test_all_verbs_answer_as_the_local_model_does(local: LocalModel, model: VllmModel, stub: Stub) -> None:
    theirs, ours = local.choose(asked_all_ways()), model.choose(asked_all_ways())
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.decision, mine.status, mine.reply, mine.usage) == (
            other.decision,
            other.status,
            other.reply,
            other.usage,
        )
        assert mine.probabilities == (other.probabilities and pytest.approx(other.probabilities, **CLOSE))
        assert mine.mass == (other.mass and pytest.approx(other.mass, **CLOSE))
    passages = [Passage(" dog", "There was a little"), Passage("Once upon a time"), Passage("cat", say("Who?")[0])]
    passages += [Passage(" ".join(WORDS.split()[: 3 * n]), "Who was") for n in range(1, 30)]
    for mine, other in zip(model.score(passages), local.score(passages), strict=True):
        assert mine == (pytest.approx(other.logprob, **CLOSE), other.tokens, "")
    talks = [*say("Who?", "Once upon a time", "Explain"), Dialogue((Message("system", "Be"), *say("a")[0].messages))]
    for sampling in (Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, stop=("cat", "A"))):
        assert model.generate(talks, sampling) == local.generate(talks, sampling)
    assert model.abilities == {"choose", "generate", "score"} and len(stub.bodies) < len(stub.prompts)


def test_the_demo_model_answers_the_same_bbq_questions() -> None:
    demo = evenhand.load("demo")
    assert isinstance(demo, LocalModel)
    stub = Stub(demo, "demo")
    try:
        served = evenhand.load(f"vllm:{stub.url}#demo", tokenizer=str(MODELS / "demo"), batch_size=8)
        items = build_benchmark("bbq(source=demo)").load()[::200]
        asked = [item.question for item in items]
        for way in ("letters", "text", "generation"):
            demo.answer_by = served.answer_by = way
            ours, theirs = served.choose(asked), demo.choose(asked)
            assert [c.decision for c in ours] == [c.decision for c in theirs], way
            assert [c.reply for c in ours] == [c.reply for c in theirs]
            for mine, other in zip(ours, theirs, strict=True):
                assert mine.probabilities == (other.probabilities and pytest.approx(other.probabilities, **CLOSE))
        assert len({c.decision for c in ours}) == 3
    finally:
        stub.stop()


def test_a_plain_transcript_stops_where_the_user_would_speak(tmp_path: Path) -> None:
    plain = tiny_model("gpt2", chat=False)
    plain.weights.tokenizer.save_pretrained(tmp_path)
    stub = Stub(plain)
    try:
        model = opened(stub, str(tmp_path))
        talks = say("Who was there?", "Explain", "dog")
        stops = ("dog", "cat", "time")
        sampling = Sampling(max_new_tokens=9, stop=stops)
        assert model.generate(talks, sampling) == plain.generate(talks, sampling)
        assert stub.bodies[-1]["stop"] == [*stops, "\nUser:"], "a server takes four; the fifth is cut here"
        ours, theirs = model.choose(questions()), plain.choose(questions())
        assert [c.probabilities for c in ours] == [pytest.approx(c.probabilities, **CLOSE) for c in theirs]
    finally:
        stub.stop()


def test_methods_work_on_it(model: VllmModel) -> None:
    from evenhand.methods.prompting.self_debias import SelfDebias

    check_method(SelfDebias(), model)


def test_reads_anywhere_and_of_any_token(local: LocalModel, model: VllmModel, stub: Stub) -> None:
    """Tokens of the sequence itself, others in the middle, and several at the end, all in one request."""
    ids = (1, 9, 12, 30, 14, 22)
    asked = [
        Request(ids, ((0, 9), (2, 30), (2, 31), (4, 22), (5, 7), (5, 8), (5, 40))),
        Request(ids[:3], ((2, 30), (1, 5))),
        continuation_request(ids, 2),
        Request((1,), ((0, 9),)),
        Request(ids, tuple((5, t) for t in range(len(local.weights.tokenizer)))),
    ]
    got, expected = model.engine.read(asked, "f"), local.engine.read(asked, "f")
    assert [len(r) for r in got] == [7, 2, 4, 1, len(local.weights.tokenizer)]
    for mine, other in zip(got, expected, strict=True):
        assert mine == pytest.approx(other, **CLOSE)
    assert all(len(b.get("logprob_token_ids", [])) <= 128 for b in stub.bodies)


def test_an_older_server_is_asked_again_for_what_it_left_out(local: LocalModel, model: VllmModel, stub: Stub) -> None:
    stub.old = {"logprob_token_ids"}
    words = len(local.weights.tokenizer)
    wide = tuple((2, t) for t in range(words))
    assert model.engine.read([Request((1, 9, 12), wide)], "f")[0] == pytest.approx(
        local.engine.read([Request((1, 9, 12), wide)], "f")[0], **CLOSE
    )
    again = [b for b in stub.bodies if "prompt_logprobs" in b]
    assert sum(len(b["prompt"]) for b in again) == words - 20
    assert all(len(ids) == 4 for b in again for ids in b["prompt"])


# --------------------------------------------------------------------------------------------------- what is sent


def test_letters_take_one_prompt_and_texts_one_each(model: VllmModel, stub: Stub) -> None:
    model.choose([Question("q", "Who?", ("a dog", "a cat", "not"), answer_by="letters")])
    assert len(stub.prompts) == 1 and stub.bodies[0]["logprobs"] == 20 and len(stub.bodies[0]["logprob_token_ids"]) == 3
    model.choose([Question("q", "Who?", ("a little dog", "is cat", "not"), answer_by="text")])
    inside = [tuple(ids) for b in stub.bodies if b.get("prompt_logprobs") == 0 for ids in b["prompt"]]
    assert len(stub.prompts) == 4 and len(inside) == 2, "the last option is one token: a next token, as letters are"
    for body in stub.bodies:
        assert body["max_tokens"] == 1 and body["temperature"] == body["top_p"] == 1.0
        assert body["add_special_tokens"] is False and body["top_k"] == -1 and "seed" not in body


def test_prompts_are_sent_in_batches_with_neighbours_together(local: LocalModel, stub: Stub, tokenizer: str) -> None:
    model = opened(stub, tokenizer, batch_size=4, concurrency=1)
    passages = [
        Passage(w, p)
        for w in (" dog time", " cat was", " time in")
        for p in ("Who was a", "There is little", "Explain")
    ]
    model.score(passages)
    assert sorted(len(b["prompt"]) for b in stub.bodies) == [1, 4, 4]
    assert stub.prompts == sorted(stub.prompts)


def test_every_draw_has_a_seed_of_its_own_and_repeats(model: VllmModel, stub: Stub) -> None:
    talks = [*say("Who?"), *say("Who?", draw=1), *say("Who?", draw=2), *say("Explain")]
    sampling = Sampling(1.0, 8, 0.9, seed=3)
    first = model.generate(talks, sampling)
    bodies = {json.dumps(b["prompt"][0]) + str(b["seed"]): b for b in stub.bodies}
    assert len(bodies) == len(stub.bodies) == 4 and all(0 <= b["seed"] < 2**63 for b in stub.bodies)
    assert {(b["temperature"], b["top_p"], b["max_tokens"]) for b in stub.bodies} == {(1.0, 0.9, 8)}
    assert model.generate(talks[::-1], sampling) == first[::-1]
    other = model.generate(talks, Sampling(1.0, 8, 0.9, seed=4))
    assert len({b["seed"] for b in stub.bodies}) == 8 and other != first


def test_greedy_draws_are_one_request(model: VllmModel, stub: Stub) -> None:
    made = model.generate([*say("Who?"), *say("Who?", draw=1), *say("Who?", draw=5)], Sampling(max_new_tokens=4))
    assert made[0] == made[1] == made[2] and len(stub.prompts) == 1 and "seed" not in stub.bodies[0]


def test_an_end_token_ends_and_a_limit_cuts(model: VllmModel, stub: Stub) -> None:
    whole = model.engine.generate([Prompt((1, 9, 12))], Sampling(max_new_tokens=9), "f")[0]
    assert not whole.finished and len(whole.ids) == 9
    third = whole.ids[3]
    stub.module.generation_config.eos_token_id, before = [2, third], stub.module.generation_config.eos_token_id
    try:
        ended = model.engine.generate([Prompt((1, 9, 12))], Sampling(max_new_tokens=9), "g")[0]
    finally:
        stub.module.generation_config.eos_token_id = before
    assert ended.finished and ended.ids == whole.ids[: whole.ids.index(third)]
    assert stub.bodies[-1]["stop_token_ids"] == [model._tokenizer.eos_token_id]


# --------------------------------------------------------------------------------------------- cache and failures


def test_nothing_is_asked_twice_and_a_broken_run_resumes(stub: Stub, tokenizer: str, tmp_path: Path) -> None:
    model = opened(stub, tokenizer, batch_size=2, concurrency=1, retries=0)
    passages = [Passage(w, "Who was a") for w in (" dog time", " cat Who", " time is", " letter", " a little dog")]
    with answer_cache(tmp_path / "c.sqlite") as cache:
        stub.refusals = [(400, {})]
        with pytest.raises(EndpointError, match=r"1 of 5 prompts were not answered.*Run again"):
            model.score(passages)
        assert cache is not None and 0 < len(cache) < 5
        stored = len(cache)
        stub.bodies.clear()
        first = model.score(passages)
        assert len(cache) == 5 and len(stub.prompts) == 5 - stored
        stub.bodies.clear()
        assert model.score(passages) == first
        talks = say("Who?", "Explain")
        replies = model.generate(talks, Sampling(max_new_tokens=3))
        sent = len(stub.bodies)
        assert sent == 1 and opened(stub, tokenizer).generate(talks, Sampling(max_new_tokens=3)) == replies
        assert len(stub.bodies) == sent


def test_a_busy_server_is_asked_again(local: LocalModel, model: VllmModel, stub: Stub) -> None:
    stub.refusals = [(503, {}), (429, {"Retry-After": "0.01"}), (500, {})]
    got = model.score([DOG])[0]
    assert got.logprob == pytest.approx(local.score([DOG])[0].logprob, **CLOSE)
    assert len(stub.bodies) == 4


def test_a_wrong_model_name_is_refused_at_once(stub: Stub, tokenizer: str) -> None:
    with pytest.raises(SettingsError, match=r"no model 'mm'. Did you mean 'm'"):
        open_vllm(f"{stub.url}#mm", tokenizer=tokenizer)
    model = opened(stub, tokenizer)
    stub.name = "renamed"  # the server was started anew in the meantime
    with pytest.raises(EndpointError, match=r"does not exist.*Check the model name"):
        model.score([DOG])


def test_an_adapter_has_its_bases_context(stub: Stub, tokenizer: str) -> None:
    model = open_vllm(f"{stub.url}#adapter", tokenizer=tokenizer)
    assert model.context_length == stub.length - 1 and model.facts()["root"] == "/adapters/x"
    assert model.fingerprint != opened(stub, tokenizer).fingerprint


def test_what_does_not_fit_is_named_before_anything_is_asked(stub: Stub, tokenizer: str) -> None:
    stub.length = 40
    model = opened(stub, tokenizer)
    long, fits = Passage(" dog" * 45, "Who", id="long one"), Passage(" dog" * 36, "Who")
    with pytest.raises(ContextTooLongError, match=r"long one needs 4\d tokens, but the context has 39"):
        model.score([fits, long])
    with pytest.raises(ContextTooLongError, match="dialogue 1"):
        model.generate(say("a", "dog " * 30), Sampling(max_new_tokens=9))
    assert not stub.bodies
    skipping = opened(stub, tokenizer, too_long="skip")
    scores = skipping.score([long, fits])
    assert math.isnan(scores[0].logprob) and scores[1].tokens == 36
    reply = skipping.generate(say("dog " * 40))[0]
    assert reply.text is None and "the context has 39" in reply.note and reply.usage == Usage()


@pytest.mark.parametrize(("field", "verb"), [("prompt_logprobs", "score"), ("return_token_ids", "generate")])
def test_another_server_is_told_apart(model: VllmModel, stub: Stub, field: str, verb: str) -> None:
    stub.old = {field}
    with pytest.raises(EndpointError, match=rf"{field}.*vLLM 0\.10\.2 or newer; for other servers use endpoint:"):
        model.score([DOG]) if verb == "score" else model.generate(say("Who?"))
    assert len(stub.bodies) == 1, "asking again cannot mend it"


def test_logits_in_place_of_logprobs_are_noticed(model: VllmModel, stub: Stub) -> None:
    stub.shift = 12.0
    with pytest.raises(EndpointError, match="--logprobs-mode raw_logprobs"):
        model.choose(questions(1))


@pytest.mark.parametrize("way", ["letters", "text"])
@pytest.mark.parametrize("value", [math.nan, None])
def test_numbers_that_are_none_leave_an_item_unanswered(
    model: VllmModel, stub: Stub, monkeypatch: pytest.MonkeyPatch, way: Any, value: float | None
) -> None:
    real = stub.complete

    def spoilt(body: dict[str, Any]) -> dict[str, Any]:
        out = real(body)
        for choice in out["choices"]:
            for top in choice.get("logprobs", {}).get("top_logprobs", ()):
                top.update(dict.fromkeys(top, value))
            for entry in filter(None, choice.get("prompt_logprobs") or ()):
                for given in entry.values():
                    given["logprob"] = value
        return out

    monkeypatch.setattr(stub, "complete", spoilt)
    with pytest.warns(UserWarning, match="logits are not finite.*--dtype"):
        (choice,) = model.choose([replace(q, answer_by=way) for q in questions(1)])
    assert (choice.decision, choice.status, choice.note) == (None, "unanswered", "logits are not finite")


def test_what_a_server_writes_for_an_impossible_token_is_one() -> None:
    from evenhand.models.vllm_engine import _number

    assert [_number(v) for v in (FLOOR, -1.5, -9998)] == [-math.inf, -1.5, -9998]
    assert math.isnan(_number(None)) and math.isnan(_number(math.nan))


@pytest.mark.parametrize("broken", [b"[]", b"{", b'{"choices": []}', b'{"choices": [{"index": 1}]}'])
def test_garbage_is_asked_for_again_and_then_named(
    model: VllmModel, stub: Stub, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    from evenhand.models import vllm_engine

    with pytest.raises(client.UnreadableError):
        vllm_engine._choices(broken, 1)
    monkeypatch.setattr(stub, "complete", lambda body: {"choices": [{"index": 0, "prompt_logprobs": [None]}]})
    with pytest.raises(EndpointError, match=r"no usable reply, IndexError.*tries: 5"):
        model.score([DOG])


# ----------------------------------------------------------------------------------------------- opening, saving


def test_saved_and_loaded_it_is_the_same(stub: Stub, tokenizer: str, tmp_path: Path) -> None:
    model = evenhand.load(f"vllm:{stub.url}#m(answer_by=text,batch_size=3,tokenizer={tokenizer!r})")
    again = evenhand.load(model.save(tmp_path / "m"), trust_folder=True)
    assert isinstance(again, VllmModel) and again.fingerprint == model.fingerprint and again.facts() == model.facts()
    assert again.answer_by == "text" and again.load_options["batch_size"] == 3
    assert again.facts()["context"] == 1023 and again.facts()["prompt_format"] == "chat template"
    json.dumps(again.facts())
    assert repr(again) == f"VllmModel('vllm:{stub.url}#m')"


def test_fingerprint_tells_servers_and_tokenizers_apart(stub: Stub, tokenizer: str, tmp_path: Path) -> None:
    base = opened(stub, tokenizer).fingerprint
    tiny_model(texts=["other words"]).weights.tokenizer.save_pretrained(tmp_path)
    assert opened(stub, str(tmp_path)).fingerprint != base
    assert opened(stub, tokenizer, answer_by="text", concurrency=1, name="n").fingerprint == base
    stub.length = 512
    assert opened(stub, tokenizer).fingerprint != base


def test_settings_and_tokenizers_that_cannot_be_used(stub: Stub, tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="vllm:http://localhost:8000/v1#my-model"):
        open_vllm("localhost")
    with pytest.raises(SettingsError, match=r"unknown option 'concurency'.*concurrency"):
        opened(stub, tokenizer, concurency=1)
    with pytest.raises(SettingsError, match="batch_size must be"):
        opened(stub, tokenizer, batch_size=0)
    with pytest.raises(SettingsError, match="letters"):
        opened(stub, tokenizer, answer_by="leters")
    with pytest.raises(EvenhandError, match=r"the model on the server \(org/base\).*tokenizer="):
        opened(stub, str(tmp_path))
    stub.stop()
    with pytest.raises(EndpointError, match="no connection"):
        opened(stub, tokenizer, retries=0)


def test_secrets_reach_the_server_and_nothing_else(
    stub: Stub, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENHAND_API_KEY", "sk-verysecret-0123456789")
    place = stub.url.removeprefix("http://")
    model = open_vllm(f"http://{place}?token=other-secret#m", tokenizer=tokenizer)
    stub.refusals = [(400, {})]
    with pytest.raises(EndpointError) as caught:
        model.score([DOG])
    model.save(tmp_path)
    shown = [str(caught.value), repr(model), str(model.facts()), str(model.load_options), model.source]
    shown += [f.read_text() for f in tmp_path.iterdir()]
    assert not any(secret in text for text in shown if text for secret in ("verysecret", "other-secret"))
