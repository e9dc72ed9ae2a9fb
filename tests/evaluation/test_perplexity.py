"""Perplexity against a plain forward pass, the windows piece by piece, files, and the contract of a benchmark."""

from __future__ import annotations

import gzip
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenhand.data.text_file import Window, load_documents, windows
from evenhand.errors import ContextTooLongError, DataError, SettingsError
from evenhand.evaluation.perplexity import Perplexity, TextWindow, WindowScore
from evenhand.models.loading import load
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model
from evenhand.testing import check_benchmark

TEXT = "the dog was in the question and the cat was at a letter of the dog there once upon time"


def item(name: str, document: str, target: str, words: int) -> TextWindow:
    return TextWindow(name, name, document, Window("", target, words))


def values(items: list[TextWindow], answers: list[WindowScore]) -> dict[str, dict[str, float]]:
    bench = Perplexity.build(source="demo")
    tally = bench.tally(items, answers)
    found = bench.compute(tally.total)
    return {g: {name: float(m.value[i]) for name, m in found.items()} for i, g in enumerate(tally.groups)}


def test_the_formulas_by_hand_in_files_of_unequal_size() -> None:
    items = [item("1", "a", "one two", 2), item("2", "a", " three", 1), item("3", "b", "vier fünf", 2)]
    answers = [WindowScore(-3.0, 4), WindowScore(-5.0, 2), WindowScore(-4.0, 10)]
    got = values(items, answers)
    assert got["a"]["perplexity"] == pytest.approx(math.exp(8 / 6))
    assert got["a"]["word_perplexity"] == pytest.approx(math.exp(8 / 3))
    assert got["a"]["bits_per_byte"] == pytest.approx(8 / math.log(2) / 13)
    assert got["b"]["bits_per_byte"] == pytest.approx(4 / math.log(2) / 10), "bytes of UTF-8, not characters"
    assert got["overall"]["perplexity"] == pytest.approx(math.exp(12 / 16)), "of all tokens, not the mean of two"
    assert got["overall"]["tokens_per_word"] == pytest.approx(16 / 5)
    assert got["overall"]["unscored"] == 0.0


def test_extremes() -> None:
    items = [item("1", "a", "one two", 2), item("2", "a", " three", 1)]
    perfect = values(items, [WindowScore(0.0, 2), WindowScore(0.0, 1)])["overall"]
    assert (perfect["perplexity"], perfect["word_perplexity"], perfect["bits_per_byte"]) == (1.0, 1.0, 0.0)
    skipped = values(items, [WindowScore(-2.0, 2), WindowScore(None, 0)])["overall"]
    assert skipped["perplexity"] == pytest.approx(math.e) and skipped["unscored"] == pytest.approx(1 / 3)
    nothing = values(items, [WindowScore(None, 0)] * 2)["overall"]
    assert math.isnan(nothing["perplexity"]) and nothing["unscored"] == 1.0
    assert values(items, [WindowScore(-1e6, 1)] * 2)["overall"]["perplexity"] == math.inf


def test_windows_piece_by_piece() -> None:
    assert windows("a b\n\nc  d e f g", 4, 2) == [
        Window("", "a b\n\nc  d", 4),
        Window("\n\nc  d", " e f", 2),
        Window(" e f", " g", 1),
    ]
    assert windows("a b c", 2, 2) == [Window("", "a b", 2), Window("", " c", 1)], "stride = window: no context"
    assert windows("a b", 4, 1) == [Window("", "a b", 2)]
    assert windows("", 4, 1) == []


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (5, 2), (7, 7), (100, 3)])
def test_every_piece_is_scored_once(size: int, stride: int) -> None:
    text = "  Eins zwei\tdrei.\n\n" + "字" * 130 + " vier fünf sechs " + "x" * 90 + "\nsieben"
    cut = windows(text, size, stride)
    assert "".join(w.target for w in cut) == text
    assert sum(w.words for w in cut) == len(text.split())
    for before, now in pairwise(cut):
        assert (before.context + before.target).endswith(now.context)


def reference(model: LocalModel, text: str) -> tuple[float, int]:
    """Loss and tokens of a whole text in one plain forward pass."""
    module, tokenizer = model.weights
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]])
    with torch.no_grad():
        logp = torch.log_softmax(module(ids).logits[0].float(), dim=-1)
    loss = -sum(float(logp[i, ids[0, i + 1]]) for i in range(ids.shape[1] - 1))
    return loss, ids.shape[1] - 1


def of_file(tmp_path: Path, text: str, **given: Any) -> Perplexity:
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    bench: Perplexity = Perplexity.build(source=str(file), **given)
    return bench


def scored(bench: Perplexity, model: LocalModel) -> dict[str, float]:
    items = bench.load()
    found = bench.compute(bench.tally(items, bench.ask(model, items)).total)
    return {name: float(m.value[0]) for name, m in found.items()}


def test_one_window_is_a_plain_forward_pass(tmp_path: Path, tiny: LocalModel) -> None:
    loss, tokens = reference(tiny, TEXT)
    got = scored(of_file(tmp_path, TEXT + "\n\n", window=50, stride=50), tiny)
    assert got["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    assert got["word_perplexity"] == pytest.approx(math.exp(loss / len(TEXT.split())), rel=1e-4)


def test_strided_windows_are_plain_forward_passes_too(tmp_path: Path, tiny: LocalModel) -> None:
    words = TEXT.split()
    loss, tokens = 0.0, 0
    for begin, end, context in [(0, 8, 0), (8, 11, 5), (11, 14, 5), (14, 17, 5), (17, 20, 5)]:
        whole = reference(tiny, " ".join(words[begin - context : end]))
        head = reference(tiny, " ".join(words[begin - context : begin])) if context else (0.0, 0)
        loss, tokens = loss + whole[0] - head[0], tokens + whole[1] - head[1]
    assert tokens == len(words) == 20
    got = scored(of_file(tmp_path, TEXT, window=8, stride=3), tiny)
    assert got["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    assert scored(of_file(tmp_path, TEXT, window=8, stride=8), tiny)["perplexity"] != pytest.approx(got["perplexity"])


def test_a_real_model_knows_its_stories(tmp_path: Path, real_model: Path) -> None:
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her mom."
    model = load(str(real_model))
    order = np.random.default_rng(0).permutation(len(story.split()))
    shuffled = " ".join(story.split()[i] for i in order)
    given = {"window": 12, "stride": 6}
    known, strange = (scored(of_file(tmp_path, t, **given), model) for t in (story, shuffled))
    assert 1 < known["perplexity"] < strange["perplexity"] / 4
    loss, tokens = reference(model, story)  # one window, as this tokenizer's tokens reach across blanks
    whole = scored(of_file(tmp_path, story), model)
    assert whole["tokens_per_word"] == pytest.approx(tokens / len(story.split()))
    assert whole["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-3)


def test_windows_that_do_not_fit_are_errors_or_unscored(tmp_path: Path) -> None:
    long = " ".join(["dog"] * 3000)
    with pytest.raises(ContextTooLongError, match=r"perplexity text\.txt#0"):
        scored(of_file(tmp_path, long, window=2000, stride=1000), tiny_model())
    got = scored(of_file(tmp_path, long, window=2000, stride=1000), tiny_model(too_long="skip"))
    assert got["unscored"] == 1.0 and math.isnan(got["perplexity"])


def test_keeps_the_contract() -> None:
    check_benchmark(Perplexity.build(source="demo"))
    check_benchmark(Perplexity.build(source="demo", unit="text", window=40, stride=20))
    check_benchmark(
        Perplexity.build(source="demo", unit="text", window=900, stride=700), tiny_model("gpt2", too_long="skip")
    )


def test_lines_are_texts_by_themselves(tmp_path: Path, tiny: LocalModel) -> None:
    bench = of_file(tmp_path, "the dog was\n\n  in the question \nthere once upon", unit="line", window=2, stride=1)
    assert [(i.window.context, i.window.target) for i in bench.load()] == [
        ("", "the dog"),
        (" dog", " was"),
        ("", "in the"),
        (" the", " question"),
        ("", "there once"),
        (" once", " upon"),
    ]
    assert len({i.id for i in bench.load()}) == 6 and bench.facts()["unit"] == "each line by itself"
    whole = of_file(tmp_path, "the dog was\nthere once upon time", unit="line")
    each = [reference(tiny, line) for line in ("the dog was", "there once upon time")]
    want = math.exp(sum(loss for loss, _ in each) / sum(n for _, n in each))
    assert scored(whole, tiny)["perplexity"] == pytest.approx(want, rel=1e-4)
    assert of_file(tmp_path, "a b\nc").facts()["unit"] == "running text"


def test_a_masked_model_has_pseudo_perplexity() -> None:
    bench, model = Perplexity.build(source="demo"), load("demo-mlm")
    items = bench.load()[::20]
    got = bench.compute(bench.tally(items, bench.ask(model, items)).total)
    module, tokenizer = model.weights
    loss, tokens = 0.0, 0
    for item_ in items:
        assert item_.window.context == "" and item_.window.target[-1] in ".?!"
        ids = tokenizer(item_.window.target).input_ids
        for at in range(1, len(ids)):
            hidden = torch.tensor([[*ids[:at], tokenizer.mask_token_id, *ids[at + 1 :]]])
            with torch.no_grad():
                loss -= float(torch.log_softmax(module(hidden).logits[0, at], -1)[ids[at]])
        tokens += len(ids) - 1
    assert got["perplexity"].value[0] == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    assert 1 < got["perplexity"].value[0] < 5, "the model knows these sentences"


def test_neighbours_are_resampled_together(tmp_path: Path) -> None:
    bench = of_file(tmp_path, TEXT, window=2, stride=1, block=4)
    names = [i.cluster for i in bench.load()]
    assert len(names) == 19 and names == [f"text.txt#{n // 4}" for n in range(19)]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"window": 1, "stride": 1}, "window=1"),
        ({"stride": 0}, "stride=0"),
        ({"window": 5, "stride": 6}, "1 to window=5"),
        ({"block": 0}, "block=0"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Perplexity.build(**given)


# --------------------------------------------------------------------------------------------------------- files


def test_a_folder_gives_a_group_per_file_and_names_bad_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffEins zwei\n".encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"three four five"))
    (tmp_path / "c.txt").write_bytes(b"fine\nna\xefve")
    (tmp_path / "d.txt").write_bytes(b" \n")
    (tmp_path / "e.csv").write_bytes(b"not a text")
    found = load_documents(str(tmp_path))
    assert [tuple(d) for d in found.documents] == [("a.txt", "Eins zwei"), ("b.txt.gz", "three four five")]
    assert found.facts["dropped"] == [
        f"{tmp_path / 'c.txt'}:2: not UTF-8: invalid continuation byte at byte 7",
        f"{tmp_path / 'd.txt'}: holds no words",
    ]
    bench = Perplexity.build(source=str(tmp_path))
    assert bench.facts()["words"] == 5
    tally = bench.tally(bench.load(), [WindowScore(-1.0, 1)] * 2)
    assert tally.groups == ("overall", "a.txt", "b.txt.gz")


def test_nothing_usable_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"holds no \.txt"):
        load_documents(str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        load_documents(str(tmp_path))
    monkeypatch.setenv("EVENHAND_DATA", str(tmp_path))
    with pytest.raises(DataError, match="source='/path/to/perplexity'"):
        load_documents("auto")
