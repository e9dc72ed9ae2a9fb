"""Log-probabilities of bare completions, as lm-evaluation-harness reads them, and replies sent as they come."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from evenhand.inference import Engine, Generated
from evenhand.inference.decoding import Decoder
from evenhand.inference.generation import RowSampler
from evenhand.inference.token_table import token_tables
from evenhand.interfaces import Dialogue, Message, Passage, Sampling, Score
from evenhand.methods.none import Untouched
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models import Mitigated
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model

pytest.importorskip("uvicorn")
pytest.importorskip("openai")

from tests.integrations.test_openai_server import TALK, Server, serving

from evenhand.integrations.openai_server import streaming
from evenhand.integrations.openai_server.texts import following, pieces

IDS = [1, 9, 14, 11, 20]


@pytest.fixture(scope="module")
def local() -> LocalModel:
    return tiny_model(name="m")


@pytest.fixture(scope="module")
def server(local: LocalModel) -> Iterator[Server]:
    with serving(local) as running:
        yield running


def forward(model: LocalModel, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model.engine.module(torch.tensor([list(ids)])).logits[0].double(), -1)


def complete(server: Server, **more: Any) -> tuple[int, Any]:
    return server.post("/v1/completions", {"model": "m", "prompt": IDS, "temperature": 0, "max_tokens": 3, **more})


# --------------------------------------------------------------------------------------------------- log-probabilities


def test_echo_lists_every_token_with_its_own_log_probability(local: LocalModel, server: Server) -> None:
    new = list(local.engine.generate([local.plain_prompt("x")._replace(ids=tuple(IDS))], Sampling(0, 3), "f")[0].ids)
    ids, tokenizer = [*IDS, *new], local.engine.tokenizer
    expected = forward(local, ids)
    status, made = complete(server, logprobs=2, echo=True)
    assert status == 200 and len(new) == 3
    listed = made["choices"][0]["logprobs"]
    assert listed["token_logprobs"][0] is None and listed["top_logprobs"][0] is None
    own = [float(expected[at - 1, ids[at]]) for at in range(1, len(ids))]
    assert listed["token_logprobs"][1:] == pytest.approx(own, abs=1e-4)
    for at, top in enumerate(listed["top_logprobs"][1:]):
        assert list(top.values())[:2] == pytest.approx(expected[at].topk(2).values.tolist(), abs=1e-4)
        assert listed["token_logprobs"][at + 1] in top.values(), "exactly, as clients look for the greedy token so"
    assert [t.strip() for t in listed["tokens"]] == [tokenizer.decode([t]).strip() for t in ids]
    shown = ["", listed["tokens"][1].strip(), *listed["tokens"][2:]]
    assert listed["tokens"][0] == "<s>", "which the text does not hold, nor a blank after it"
    assert listed["text_offset"] == [sum(map(len, shown[:n])) for n in range(len(ids))]
    assert made["choices"][0]["text"] == "".join(shown)
    assert made["choices"][0]["text"].startswith(tokenizer.decode(IDS, skip_special_tokens=True))
    assert made["usage"]["prompt_tokens"] == len(IDS) and made["usage"]["completion_tokens"] == 3


def test_without_echo_only_new_tokens_are_listed(local: LocalModel, server: Server) -> None:
    whole = complete(server, logprobs=2, echo=True)[1]["choices"][0]["logprobs"]
    listed = complete(server, logprobs=2)[1]["choices"][0]["logprobs"]
    assert listed["token_logprobs"] == pytest.approx(whole["token_logprobs"][len(IDS) :], abs=1e-5)
    assert len(listed["tokens"]) == 3 and listed["text_offset"][0] == 0
    assert complete(server)[1]["choices"][0]["logprobs"] is None
    assert all(top == {} for top in complete(server, logprobs=0)[1]["choices"][0]["logprobs"]["top_logprobs"])


def test_text_is_echoed_as_it_was_given(local: LocalModel, server: Server) -> None:
    plain = complete(server, prompt="Once  upon")[1]["choices"][0]["text"]
    made = complete(server, prompt="Once  upon", echo=True, logprobs=1)[1]["choices"][0]
    assert made["text"] == "Once  upon" + plain
    alone = complete(server, prompt="Once  upon", echo=True, max_tokens=0, logprobs=1)[1]
    assert alone["choices"][0]["text"] == "Once  upon" and alone["usage"]["completion_tokens"] == 0
    assert alone["choices"][0]["logprobs"]["token_logprobs"][1:] == pytest.approx(
        made["logprobs"]["token_logprobs"][1 : len(alone["choices"][0]["logprobs"]["tokens"])], abs=1e-5
    )


def parts_of(choice: dict[str, Any]) -> list[str]:
    begins = choice["logprobs"]["text_offset"]
    return [choice["text"][a:b] for a, b in zip(begins, [*begins[1:], len(choice["text"])], strict=True)]


def writing(local: LocalModel, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Have the model write these words."""
    ids = tuple(int(local.engine.tokenizer.convert_tokens_to_ids(w)) for w in words)
    text = local.engine.tokenizer.decode(list(ids), skip_special_tokens=True)
    made = Generated(ids, text, finished=False)
    monkeypatch.setattr(local, "continued", lambda asked, sampling: [made for _ in asked])


def test_a_reply_begins_with_the_blank_between_it_and_the_prompt(
    local: LocalModel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(local, monkeypatch, "the", "dog")
    made = complete(server, prompt="dog cat", logprobs=1)[1]["choices"][0]
    assert made["text"] == " the dog" and made["logprobs"]["tokens"] == parts_of(made) == [" the", " dog"]
    made = complete(server, prompt="dog cat", logprobs=1, echo=True)[1]["choices"][0]
    assert made["text"] == "dog cat the dog" and parts_of(made) == ["", "dog", " cat", " the", " dog"]
    ids = list(local.plain_prompt("dog cat").ids)
    assert complete(server, prompt=ids, echo=True)[1]["choices"][0]["text"] == "dog cat the dog"
    pieces = events(server, "/completions", {"prompt": "dog cat", "temperature": 0, "max_tokens": 2})
    assert "".join(e["choices"][0]["text"] for e in pieces) == " the dog"


def test_a_stop_string_may_begin_with_that_blank(
    local: LocalModel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(local, monkeypatch, "the", "dog")
    made = complete(server, prompt="dog cat", stop=" the", logprobs=1, echo=True)[1]["choices"][0]
    assert made["text"] == "dog cat" and made["finish_reason"] == "stop"
    assert made["logprobs"]["text_offset"] == [0, 0, 3, 7, 7], "none beyond the end of the text"


def test_places_follow_a_prompt_that_the_tokenizer_rewrites(
    local: LocalModel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blanks are not among its tokens, and what it does not know is not shown where it is decoded."""
    writing(local, monkeypatch, "the")
    made = complete(server, prompt="  dog   h\u00e9llo cat ", logprobs=1, echo=True)[1]["choices"][0]
    assert made["text"] == "  dog   h\u00e9llo cat  the"
    assert parts_of(made) == ["", "  dog", "   h\u00e9llo", " cat ", " the"]


def test_a_character_of_several_tokens_belongs_to_the_last() -> None:
    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace").lstrip(" ")

    text = " a \u00e9\U0001f642 b"
    assert pieces(decode, text.encode()) == ["", "a", " ", "", "\u00e9", "", "", "", "\U0001f642", " ", "b"]
    assert pieces(decode, "a\u00e9".encode()[:-1]) == ["a", "\ufffd"] and pieces(decode, b"") == []
    assert following(decode, b"a", b" b") == " b" and following(decode, b"", b" b") == "b"
    assert following(decode, "\u00e9".encode()[:1], "\u00e9".encode()[1:]) == "\ufffd", "nothing is made up"


def test_the_token_that_ends_a_reply_is_listed(
    local: LocalModel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients drop the last entry as the new token: without it they would drop one of the text."""
    expected = forward(local, IDS)[-1]
    best = int(expected.argmax())
    monkeypatch.setattr(local.engine.module.generation_config, "eos_token_id", [2, best])
    made = complete(server, logprobs=1, echo=True, max_tokens=1)[1]["choices"][0]
    assert made["finish_reason"] == "stop" and len(made["logprobs"]["tokens"]) == len(IDS) + 1
    assert made["logprobs"]["token_logprobs"][-1] == pytest.approx(float(expected[best]), abs=1e-4)


def test_several_prompts_and_choices_keep_their_lists(local: LocalModel, server: Server) -> None:
    prompts = [IDS, [1, 30, 31], IDS[:3]]
    made = complete(server, prompt=prompts, n=2, logprobs=1, echo=True, max_tokens=1)[1]["choices"]
    assert [c["index"] for c in made] == list(range(6))
    for choice, ids in zip(made, [p for p in prompts for _ in range(2)], strict=True):
        own = [float(forward(local, ids)[at - 1, ids[at]]) for at in range(1, len(ids))]
        assert choice["logprobs"]["token_logprobs"][1 : len(ids)] == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": 0}, "echo=true"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1, "stream": True}, "not streamed"),
        ({"echo": True, "stream": True}, "not streamed"),
        ({"echo": True, "max_tokens": 0, "prompt": [1] * 1025}, "context"),
    ],
)
def test_what_cannot_be_listed_is_refused(server: Server, change: dict[str, Any], said: str) -> None:
    status, body = complete(server, **change)
    assert status == 400 and said in body["error"]["message"]


def test_methods_of_their_own_give_no_lists(local: LocalModel) -> None:
    scored = Mitigated(local, Untouched(), score=lambda passages: [Score(0.0, 1) for _ in passages])
    for model, said in ((scored, "token by token"), (SelfDebias().apply(local), "no log-probabilities")):
        with serving(model, name="m") as server:
            status, body = complete(server, logprobs=1, echo=True)
            assert status == 400 and said in body["error"]["message"]
    with serving(scored, name="m") as server:
        assert complete(server)[0] == 200


def test_long_rows_are_read_in_parts(local: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, starts = [[1, *range(5, 40)], [1, 7, 8], [1]], [3, 1, 1]
    whole = token_tables(local.engine.module, rows, starts, 2)
    vocabulary = local.engine.module.config.vocab_size
    monkeypatch.setattr("evenhand.inference.token_table.READ_ELEMENTS", 7 * vocabulary)
    parts = token_tables(local.engine.module, rows, starts, 2)
    assert [len(t) for t in whole] == [len(t) for t in parts] == [33, 2, 0]
    for one, other in zip(whole, parts, strict=True):
        assert [e.logprob for e in one] == pytest.approx([e.logprob for e in other], abs=1e-4)


# ------------------------------------------------------------------------------------------- lm-evaluation-harness

PAIRS = [("Once upon a", " time"), ("Once upon a", " little dog"), ("The cat was", " little"), ("A", " B C")]


def edited() -> LocalModel:
    """A model whose weights were changed, as a method of training leaves it."""
    model = tiny_model(name="m")
    with model.editing() as weights, torch.no_grad():
        for parameter in weights.module.parameters():
            parameter.mul_(1.1)
    return model


def test_the_harness_reads_the_lists_rightly() -> None:
    """With the harness's own request and its own reading of the reply, which need none of its other packages."""
    harness = pytest.importorskip("lm_eval.models.openai_completions").LocalCompletionsAPI
    model = edited()
    rows = [([1, 9, 14], [11, 20]), ([1, 30], [31]), ([1, 9, 14, 11], [20, 9, 9])]
    with serving(model, name="m") as server:
        asker = type("Asker", (), {"model": "m"})()
        body = harness._create_payload(asker, [c + t for c, t in rows], generate=False)
        status, made = server.post("/v1/completions", body)
    assert status == 200
    read = harness.parse_logprobs(made, ctxlens=[len(c) for c, _ in rows])
    for (logprob, greedy), (context, told) in zip(read, rows, strict=True):
        ids = [*context, *told]
        table = forward(model, ids)
        places = range(len(context), len(ids))
        assert logprob == pytest.approx(sum(float(table[at - 1, ids[at]]) for at in places), abs=1e-3)
        assert greedy == all(int(table[at - 1].argmax()) == ids[at] for at in places)


@pytest.mark.skipif(importlib.util.find_spec("tenacity") is None, reason="needs lm_eval[api]")
def test_the_harness_client_scores_a_mitigated_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """local-completions, from the text to the sum: what `score` gives, with the greedy flag."""
    harness = pytest.importorskip("lm_eval.models.openai_completions").LocalCompletionsAPI
    from lm_eval.api.instance import Instance

    model = edited()
    model.engine.tokenizer.save_pretrained(tmp_path)
    wrapped = Mitigated(model, Untouched(), choose=model.choose)
    with serving(wrapped, name="m") as server:
        options = {"base_url": f"{server.url}/completions", "model": "m", "tokenizer": str(tmp_path)}
        client = harness(**options, tokenizer_backend="huggingface", add_bos_token=True, batch_size=3, max_length=512)
        asked = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(PAIRS)]
        read = client.loglikelihood(asked)
    here = model.score_parted([Passage(continuation, context) for context, continuation in PAIRS])
    assert [r[0] for r in read] == pytest.approx([s.logprob for s in here], abs=1e-3)
    assert all(isinstance(r[1], bool) for r in read) and len({round(r[0], 3) for r in read}) == 4


# ------------------------------------------------------------------------------------------------------------ streams


def events(server: Server, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    import urllib.request

    content = json.dumps({"model": "m", "stream": True, **body}).encode()
    request = urllib.request.Request(f"{server.url}{path}", content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        for line in reply:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])


@pytest.mark.parametrize("tree", [True, False])
def test_words_are_sent_while_the_reply_is_written(
    local: LocalModel, server: Server, monkeypatch: pytest.MonkeyPatch, tree: bool
) -> None:
    """The model waits in the middle of its reply until the client has read the beginning of it."""
    read, waited = threading.Event(), []
    monkeypatch.setattr(streaming, "INTERVAL", 0.0)
    whole = server.chat(max_tokens=24)[1]["choices"][0]["message"]["content"]

    def wait() -> None:
        waited.append(None)
        if len(waited) == 12:
            assert read.wait(600)

    if tree:
        step = Decoder._step
        monkeypatch.setattr(Decoder, "_step", lambda self, *given: (wait(), step(self, *given))[1])
    else:
        # the model is taken for one that the tree cannot run
        tried = local.engine.tried._replace(continues=False)
        monkeypatch.setitem(local.engine.__dict__, "tried", tried)
        call = RowSampler.__call__
        monkeypatch.setattr(RowSampler, "__call__", lambda self, *given: (wait(), call(self, *given))[1])
    said: list[str] = []
    for event in events(server, "/chat/completions", {"messages": TALK, "temperature": 0, "max_tokens": 24}):
        piece = event["choices"][0]["delta"].get("content") or ""
        said.append(piece)
        if piece:
            assert read.is_set() or len(waited) <= 12
            read.set()
    assert len(waited) > 12 and "".join(said) == whole and sum(map(bool, said)) > 3
    assert isinstance(local.engine, Engine)


def test_streams_of_several_choices_and_of_bare_texts_are_the_whole_replies(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "INTERVAL", 0.0)
    body = {"messages": TALK, "temperature": 1.5, "seed": 5, "n": 3, "max_tokens": 20}
    whole = [c["message"]["content"] for c in server.chat(**body)[1]["choices"]]
    texts = ["", "", ""]
    for event in events(server, "/chat/completions", {**body, "stream_options": {"include_usage": True}}):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == whole and event["usage"] == server.chat(**body)[1]["usage"] and len(set(texts)) == 3
    bare = complete(server, max_tokens=20)[1]["choices"][0]["text"]
    pieces = events(server, "/completions", {"prompt": IDS, "temperature": 0, "max_tokens": 20})
    sent = [e["choices"][0]["text"] for e in pieces]
    assert "".join(sent) == bare and bare.startswith(" ") and sum(map(bool, sent)) > 3


def test_nothing_of_a_stop_string_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "INTERVAL", 0.0)
    words = server.chat(max_tokens=20)[1]["choices"][0]["message"]["content"].split()
    body = {"messages": TALK, "temperature": 0, "max_tokens": 20, "stop": [f"{words[8]} {words[9]}"]}
    whole = server.chat(**body)[1]["choices"][0]
    pieces = list(events(server, "/chat/completions", body))
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in pieces) == whole["message"]["content"]
    assert pieces[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "stop"


def test_what_fails_before_the_first_word_has_a_status(server: Server) -> None:
    status, body = server.chat(stream=True, max_tokens=5000)
    assert status == 400 and body["error"]["code"] == "context_length_exceeded"


def test_what_fails_later_ends_the_stream_with_an_error(
    local: LocalModel, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.errors import EvenhandError

    monkeypatch.setattr(streaming, "INTERVAL", 0.0)
    steps: list[None] = []
    step = Decoder._step

    def fail(self: Decoder, *given: Any) -> None:
        steps.append(None)
        if len(steps) > 8:
            raise EvenhandError("the memory is gone")
        step(self, *given)

    monkeypatch.setattr(Decoder, "_step", fail)
    made = list(events(server, "/chat/completions", {"messages": TALK, "temperature": 0, "max_tokens": 24}))
    assert any("choices" in e and e["choices"][0]["delta"].get("content") for e in made)
    assert made[-1]["error"]["message"] == "the memory is gone"


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [
        ("one two thr", (), "one two"),
        ("one two ", (), "one"),
        ("one", (), ""),
        ("", (), ""),
        ("x" * 50, (), "x" * 50),
        ("x" * 50 + "\ufffd", (), "x" * 50),
        ("one two\n\nQ: three fo", ("\n\nQ:",), "one two"),
        ("one two\n\nQ", ("\n\nQ:",), "one two"),
        ("one EN D two", ("EN F",), "one EN D"),
        ("one EN two", ("EN F",), "one "),
    ],
)
def test_only_what_will_stay_is_settled(text: str, stop: tuple[str, ...], kept: str) -> None:
    assert streaming.settled(text, stop) == kept


def test_a_dialogue_is_answered_the_same_whether_anyone_listens(local: LocalModel) -> None:
    from evenhand.inference.listening import listening

    told: list[int] = []
    talk = [Dialogue((Message("user", "Who was there?"),))]
    silent = local.generate(talk, Sampling(max_new_tokens=9))
    with listening(lambda prompt, new: told.append(len(new))):
        assert local.generate(talk, Sampling(max_new_tokens=9)) == silent
    assert told == list(range(1, silent[0].usage.new_tokens + 1))
