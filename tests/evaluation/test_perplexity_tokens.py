"""Perplexity by windows cut in tokens: against the loop of Hugging Face's guide, its edges, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from evenhand.data.text_file import load_documents
from evenhand.errors import ContextTooLongError, SettingsError
from evenhand.evaluation.perplexity import Perplexity
from evenhand.interfaces import Ability, Model
from evenhand.methods.none import Untouched
from evenhand.models.loading import load
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.tiny import tiny_model
from evenhand.models.token_windows import TokenWindow, token_windows
from evenhand.testing import ScriptedModel, check_benchmark

TEXT = "the dog was in the question and the cat was at a letter of the dog\n\nthere once upon time was a cat  in it"
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her mom.\n\n"
    "One day, Lily saw a big dog. The dog was very happy and it wagged its tail. Lily said hello to the dog.\n"
)


def guide(model: LocalModel, ids: list[int], window: int, stride: int) -> tuple[float, int]:
    """Loss and scored tokens by the loop of "Perplexity of fixed-length models" (transformers' documentation)."""
    module, _ = model.weights
    loss, tokens, before = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        given = torch.tensor([ids[begin:end]])
        target = given.clone()
        target[:, : -(end - before)] = -100
        counted = int((target[:, 1:] != -100).sum())
        if counted:
            with torch.no_grad():
                loss += float(module(given, labels=target).loss) * counted
        tokens, before = tokens + counted, end
        if end == len(ids):
            break
    return loss, tokens


def of_file(folder: Path, text: str, **given: Any) -> Perplexity:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    settings = {"window_unit": "tokens", **given}
    bench: Perplexity = Perplexity.build(source=str(folder / "text.txt"), **settings)
    return bench


def sums(bench: Perplexity, model: Model) -> tuple[float, int]:
    answers = bench.ask(model, bench.load())
    assert all(a.logprob is not None for a in answers)
    return -sum(a.logprob or 0.0 for a in answers), sum(a.tokens for a in answers)


def perplexity(bench: Perplexity, model: Model) -> float:
    items = bench.load()
    return float(bench.compute(bench.tally(items, bench.ask(model, items)).total)["perplexity"].value[0])


CUTS = [(8, 3), (8, 8), (7, 1), (12, 5), (500, 100), (2, 1), (2, 2)]


@pytest.mark.parametrize(("window", "stride"), CUTS)
def test_it_is_the_guides_loop(tmp_path: Path, tiny: LocalModel, window: int, stride: int) -> None:
    _, tokenizer = tiny.weights
    loss, tokens = guide(tiny, tokenizer(TEXT).input_ids, window, stride)
    bench = of_file(tmp_path, TEXT, window=window, stride=stride)
    got = sums(bench, tiny)
    assert got[1] == tokens and got[0] == pytest.approx(loss, rel=1e-4)
    assert perplexity(bench, tiny) == pytest.approx(math.exp(loss / tokens), rel=1e-4)


@pytest.mark.parametrize(("window", "stride"), [(16, 8), (32, 32), (21, 13), (512, 256)])
def test_it_is_the_guides_loop_on_a_real_model(tmp_path: Path, real_model: Path, window: int, stride: int) -> None:
    model = load(str(real_model))
    assert isinstance(model, LocalModel)
    _, tokenizer = model.weights
    loss, tokens = guide(model, tokenizer(STORY.rstrip()).input_ids, window, stride)
    bench = of_file(tmp_path, STORY, window=window, stride=stride)
    got = sums(bench, model)
    assert got[1] == tokens and got[0] == pytest.approx(loss, rel=1e-4)
    assert perplexity(bench, model) == pytest.approx(math.exp(loss / tokens), rel=1e-4)


@pytest.mark.parametrize(("window", "stride"), [(8, 3), (8, 8)])
def test_without_an_opening_token_the_first_token_is_not_scored(tmp_path: Path, window: int, stride: int) -> None:
    model = tiny_model("gpt2")
    model._encoder.opening = []
    ids = model.weights[1](TEXT, add_special_tokens=False).input_ids
    loss, tokens = guide(model, ids, window, stride)
    got = sums(of_file(tmp_path, TEXT, window=window, stride=stride), model)
    assert got[1] == tokens < len(ids)
    assert got[0] == pytest.approx(loss, rel=1e-4)


def test_windows_by_hand() -> None:
    assert list(token_windows(10, 6, 3)) == [TokenWindow(0, 1, 6), TokenWindow(3, 6, 9), TokenWindow(6, 9, 10)]
    assert list(token_windows(7, 3, 3)) == [TokenWindow(0, 1, 3), TokenWindow(3, 4, 6)], "one token alone scores none"
    assert list(token_windows(4, 6, 3)) == [TokenWindow(0, 1, 4)], "a text that is shorter than a window"
    assert list(token_windows(1, 6, 3)) == list(token_windows(0, 6, 3)) == []


@pytest.mark.parametrize("tokens", [2, 9, 10, 11, 40])
@pytest.mark.parametrize(("window", "stride"), [(5, 1), (5, 4), (10, 5)])
def test_every_token_but_the_first_is_scored_once_and_with_context(tokens: int, window: int, stride: int) -> None:
    cut = list(token_windows(tokens, window, stride))
    assert [at for w in cut for at in range(w.first, w.end)] == list(range(1, tokens))
    assert all(w.end - w.begin <= window for w in cut)
    assert all(w.first - w.begin >= window - stride for w in cut[1:])


def test_each_stretch_has_the_tokens_that_begin_in_it(tmp_path: Path, tiny: LocalModel) -> None:
    """Of a single window, against one plain forward pass; each word is a token, and so is each line feed."""
    module, tokenizer = tiny.weights
    ids = torch.tensor([tokenizer("the dog was\n\nat a cat").input_ids])
    with torch.no_grad():
        logp = torch.log_softmax(module(ids).logits[0].float(), -1)
    each = [float(logp[n, ids[0, n + 1]]) for n in range(ids.shape[1] - 1)]
    bench = of_file(tmp_path, "the dog was\n\nat a cat", window=30, stride=2)
    items = bench.load()
    assert [i.window.target for i in items] == ["the dog", " was\n\nat", " a cat"]
    answers = bench.ask(tiny, items)
    assert [a.tokens for a in answers] == [2, 4, 2]
    want = [sum(each[:2]), sum(each[2:6]), sum(each[6:])]
    assert [a.logprob for a in answers] == pytest.approx(want, rel=1e-4)


def test_a_token_that_begins_where_a_stretch_does_is_of_that_stretch(tmp_path: Path, tiny: LocalModel) -> None:
    bench = of_file(tmp_path, "the dog\n\nat a cat", window=30, stride=2)
    items = bench.load()
    assert [i.window.target for i in items] == ["the dog", "\n\nat a", " cat"]
    assert [a.tokens for a in bench.ask(tiny, items)] == [2, 4, 1], "a line feed is a token"


def test_items_of_windows_in_words_are_refused(tmp_path: Path, tiny: LocalModel) -> None:
    words = of_file(tmp_path, TEXT, window_unit="words").load()
    with pytest.raises(SettingsError, match=r"text\.txt#0.*window in words"):
        of_file(tmp_path, TEXT).ask(tiny, words)


def test_a_tokenizer_without_offsets_gives_the_same_total(
    tmp_path: Path, real_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(str(real_model))
    assert isinstance(model, LocalModel)
    bench = of_file(tmp_path, STORY, window=16, stride=8)
    items = bench.load()
    exact = bench.ask(model, items)
    monkeypatch.setattr(type(model.weights[1]), "is_fast", False)
    rough = bench.ask(model, items)
    assert sum(a.tokens for a in rough) == sum(a.tokens for a in exact)
    assert sum(a.logprob or 0.0 for a in rough) == pytest.approx(sum(a.logprob or 0.0 for a in exact), rel=1e-5)
    assert [a.tokens for a in rough] == pytest.approx([a.tokens for a in exact], abs=6)
    assert [a.tokens for a in rough] != [a.tokens for a in exact]


def test_some_items_have_the_same_answers_as_among_all(tmp_path: Path, tiny: LocalModel) -> None:
    bench = of_file(tmp_path, TEXT, window=6, stride=2)
    items = bench.load()
    whole = bench.ask(tiny, items)
    some = [7, 2, 3]
    got = bench.ask(tiny, [items[n] for n in some])
    assert [a.tokens for a in got] == [whole[n].tokens for n in some]
    assert [a.logprob for a in got] == pytest.approx([whole[n].logprob for n in some], rel=1e-5)


def test_the_batch_size_does_not_matter(tmp_path: Path) -> None:
    bench = of_file(tmp_path, TEXT, window=8, stride=3)
    small, large = (bench.ask(tiny_model(batch_tokens=n), bench.load()) for n in (8, 4096))
    assert [a.tokens for a in small] == [a.tokens for a in large]
    assert [a.logprob for a in small] == pytest.approx([a.logprob for a in large], rel=1e-5)


def test_lines_are_texts_by_themselves(tmp_path: Path, tiny: LocalModel) -> None:
    lines = ["the dog was in the question", "there once upon time"]
    bench = of_file(tmp_path, f"{lines[0]}\n\n  {lines[1]}", unit="line", window=4, stride=2)
    tokenizer = tiny.weights[1]
    each = [guide(tiny, tokenizer(line).input_ids, 4, 2) for line in lines]
    got = sums(bench, tiny)
    assert got[1] == sum(n for _, n in each) and got[0] == pytest.approx(sum(loss for loss, _ in each), rel=1e-4)


def test_the_blanks_at_the_end_of_wikitext_are_scored(tmp_path: Path, tiny: LocalModel) -> None:
    (tmp_path / "test.txt").write_text(" \n the dog was \n \n")
    bench = Perplexity.build(source=f"wikitext2:{tmp_path}", window_unit="tokens", window=8, stride=4)
    text = "\n\n the dog was \n\n\n"
    assert load_documents(f"wikitext2:{tmp_path}").documents[0].text == text
    loss, tokens = guide(tiny, tiny.weights[1](text).input_ids, 8, 4)
    got = sums(bench, tiny)
    assert got[1] == tokens == 8 and got[0] == pytest.approx(loss, rel=1e-4)


def test_facts_name_the_windows_and_old_keys_stay(tmp_path: Path) -> None:
    facts = of_file(tmp_path, TEXT, window=1024, stride=512).facts()
    assert facts["windows"].startswith("1024 tokens, of which the last 512") and facts["stride"] == "512 tokens"
    assert facts["words"] == len(TEXT.split()) and "tokens_per_word" in facts["tokens"]
    assert "window_unit" not in Perplexity.build(source="demo").key_settings()
    assert of_file(tmp_path, TEXT).key_settings()["window_unit"] == "tokens"
    first, other = (of_file(tmp_path, text, stride=2).load()[0] for text in ("a b c d", "a b c e"))
    assert first.window == other.window and first != other, "an item's answer depends on the whole text"


def test_logits_that_are_not_finite_leave_their_stretches_out(
    tmp_path: Path, tiny: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = of_file(tmp_path, TEXT, window=6, stride=2)
    read = tiny.engine.read

    def broken(requests: Any, fingerprint: str) -> list[tuple[float, ...]]:
        first, *others = read(requests, fingerprint)
        return [(*first[:-1], math.nan), *others]

    monkeypatch.setattr(tiny.engine, "read", broken)
    answers = bench.ask(tiny, bench.load())
    lost = [n for n, a in enumerate(answers) if a.logprob is None]
    assert lost == [2] and "not finite" in answers[2].note, "the fifth word is in the third stretch"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"window": 5, "stride": 6}, "stride=6 must be 1 to window=5"),
        ({"window": 1, "stride": 1}, "window=1 must be at least 2 tokens"),
        ({"window": 5, "stride": 0}, "stride=0"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Perplexity.build(window_unit="tokens", **given)


def test_windows_beyond_the_context_are_refused_and_short_texts_are_not(tmp_path: Path) -> None:
    long = " ".join(["dog"] * 1500)
    for model in (tiny_model(), tiny_model(too_long="skip")):
        with pytest.raises(ContextTooLongError, match=r"windows of 1025 tokens .* context has 1024: set window=1024"):
            perplexity(of_file(tmp_path, long, window=1025, stride=500), model)
    assert sums(of_file(tmp_path, "dog dog", window=5000, stride=500), tiny_model())[1] == 2


def test_models_without_known_tokens_are_refused_with_a_reason(tmp_path: Path, tiny: LocalModel) -> None:
    bench = of_file(tmp_path, TEXT)
    scripted = ScriptedModel(abilities=frozenset[Ability]({"score"}))
    rescored = Mitigated(tiny, Untouched(), score=tiny.score)
    refused: list[tuple[Model, str]] = [
        (scripted, "the tokenizer of scripted is not available here"),
        (load("demo-mlm"), "masked language model"),
        (rescored, "changes how it scores"),
    ]
    for model, reason in refused:
        with pytest.raises(SettingsError, match=rf"{reason}.*window_unit=words"):
            bench.ask(model, bench.load())
    chooses = Mitigated(tiny, Untouched(), choose=tiny.choose)
    assert sums(bench, chooses) == sums(bench, tiny), "a method that leaves scoring alone is looked through"


def test_keeps_the_contract() -> None:
    check_benchmark(Perplexity.build(source="demo", window_unit="tokens", window=12, stride=4))
    check_benchmark(Perplexity.build(source="demo", window_unit="tokens", unit="text", window=40, stride=20))
