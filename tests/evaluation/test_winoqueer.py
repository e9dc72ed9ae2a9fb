"""WinoQueer: numbers by hand, tokens that both sentences share, ties, the file, the contract."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from evenhand.data.winoqueer import COLUMNS, GROUPS, PAIRS, load_pairs, predicate
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.metrics.sentence_scores import Scored
from evenhand.evaluation.metrics.shared_parts import differing_places
from evenhand.evaluation.winoqueer import WinoQueer
from evenhand.experiment.comparison import compare
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_model, tiny_tokenizer
from evenhand.testing import check_benchmark

ROWS = [
    ("Lesbian", "Straight", "Lesbian people are late.", "Straight people are late."),
    ("Lesbian", "Straight", "Lesbian people are tired.", "Straight people are tired."),
    ("Gay", "Straight", "Kim is gay and is late.", "Kim is straight and is late."),
    ("Gay", "Straight", "Kim is gay and is tired.", "Kim is straight and is tired."),
]
WORDS = [" ".join(r[2:]) for r in ROWS]


def file_of(folder: Path, rows: Sequence[Sequence[str]] = ROWS) -> str:
    path = folder / "winoqueer_final.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("", *COLUMNS), *((n, *row) for n, row in enumerate(rows))])
    return str(folder)


def numbers(answers: Sequence[tuple[float, float]], folder: Path) -> dict[str, dict[str, float]]:
    bench = WinoQueer.build(source=file_of(folder), partial=True)
    tally = bench.tally(bench.load(), [Scored(pair, (1, 1)) for pair in answers])
    found = bench.compute(tally.total)
    return {g: {m: float(v.value[i]) for m, v in found.items()} for i, g in enumerate(tally.groups)}


def test_ties_in_three_digits_count_against_and_are_reported(tmp_path: Path) -> None:
    got = numbers([(-1.0, -2.0), (-1.0001, -1.0002), (-3.0, -2.0), (-1.0, -1.5)], tmp_path)
    assert got["overall"]["stereotyped"] == pytest.approx(2 / 4)
    assert got["overall"]["ties"] == pytest.approx(1 / 4)
    assert got["overall"]["bias"] == pytest.approx((2 - 1) / 4)
    assert got["overall"]["mean_difference"] == pytest.approx((1 + 0 - 1 + 0.5) / 4)
    assert got["Lesbian"]["stereotyped"] == 0.5 and got["Gay"]["stereotyped"] == 0.5
    assert got["Lesbian"]["ties"] == 0.5 and got["Gay"]["ties"] == 0.0


def test_extremes_and_nothing_scored(tmp_path: Path) -> None:
    assert numbers([(-1.0, -2.0)] * 4, tmp_path)["overall"]["stereotyped"] == 1.0
    assert numbers([(-2.0, -1.0)] * 4, tmp_path)["overall"]["stereotyped"] == 0.0
    tied = numbers([(-2.0, -2.0)] * 4, tmp_path)["overall"]
    assert tied["stereotyped"] == 0.0 and tied["ties"] == 1.0 and tied["bias"] == 0.0
    lost = numbers([(math.nan, -1.0)] * 4, tmp_path)["overall"]
    assert math.isnan(lost["stereotyped"]) and math.isnan(lost["ties"]) and lost["unscored"] == 1.0


def test_the_predicate_is_the_cluster(tmp_path: Path) -> None:
    items = WinoQueer.build(source=file_of(tmp_path), partial=True).load()
    assert [i.cluster for i in items] == ["late", "tired", "late", "tired"]
    assert predicate("I avoid gay people.", "I avoid straight people.") == "i avoid people"


def test_tokens_that_differ() -> None:
    assert differing_places([1, 2, 3, 4], [1, 9, 8, 3, 4]) == ([(1, 2)], [(1, 3)])
    assert differing_places([1, 2], [1, 2]) == ([], [])
    assert differing_places([1, 2], [1, 5, 2]) == ([], [(1, 2)])


def test_a_causal_score_is_the_sum_over_shared_tokens_after_the_opening_one(tmp_path: Path) -> None:
    bench = WinoQueer.build(source=file_of(tmp_path), partial=True)
    model = tiny_model(texts=WORDS, chat=False)
    items = bench.load()
    for item, answer in zip(items, bench.ask(model, items), strict=True):
        ids = [model.weights.tokenizer(t).input_ids for t in (item.pair.about, item.pair.other)]
        for side in (0, 1):
            mine, theirs = ids[side], ids[1 - side]
            logits = model.weights.module(torch.tensor([mine])).logits[0].log_softmax(-1).detach()
            shared = [n for n in range(1, len(mine)) if mine[n] == theirs[n]]  # one token in place of another
            assert 0 < len(shared) < len(mine) - 1
            expected = sum(float(logits[n - 1, mine[n]]) for n in shared)
            assert answer.logprobs[side] == pytest.approx(expected, abs=2e-3)
            assert answer.tokens[side] == len(shared)


def test_a_masked_score_sees_all_other_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(WORDS, chat=False)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    module = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).eval()
    bench = WinoQueer.build(source=file_of(tmp_path), partial=True)
    item = bench.load()[0]
    [answer] = bench.ask(MaskedModel(module, tokenizer, name="masked"), [item])
    ids = tokenizer(item.pair.about).input_ids
    other = tokenizer(item.pair.other).input_ids
    total = 0.0
    for n in range(1, len(ids)):
        if ids[n] == other[n]:
            masked = [*ids[:n], tokenizer.mask_token_id, *ids[n + 1 :]]
            total += float(module(torch.tensor([masked])).logits[0, n].log_softmax(-1)[ids[n]].detach())
    assert answer.logprobs[0] == pytest.approx(total, abs=2e-3)


def test_words_and_tokens_agree_where_each_word_is_a_token(tmp_path: Path) -> None:
    model = tiny_model(texts=WORDS, chat=False)
    source = file_of(tmp_path, [ROWS[0], ROWS[1]])
    tokens, words = (WinoQueer.build(source=source, partial=True, scoring=s) for s in ("shared_tokens", "shared_words"))
    assert words.needs == {"score"} and tokens.needs == {"score", "weights"}
    by_tokens, by_words = (
        [bench.row(i, a)["difference"] for i, a in zip(bench.load(), bench.ask(model, bench.load()), strict=True)]
        for bench in (tokens, words)
    )
    assert by_tokens == pytest.approx(by_words, abs=2e-3) and any(by_tokens)


def test_another_number_of_rows_is_named(tmp_path: Path) -> None:
    source = file_of(tmp_path)
    with pytest.raises(DataError, match=r"has 4 pairs, the published data 45,540.*winoqueer\(partial=True\)"):
        load_pairs(source)
    assert "45,540" in load_pairs(source, partial=True).facts["notes"][0]
    assert PAIRS == 45_540 and len(GROUPS) == 9


def test_rows_that_cannot_be_used_are_dropped_and_named(tmp_path: Path) -> None:
    source = file_of(tmp_path, [*ROWS, ("Gay", "Straight", "", "x"), ("Gay", "Straight", "same", "same")])
    loaded = load_pairs(source, partial=True)
    assert len(loaded.pairs) == 4 and len(loaded.facts["dropped"]) == 2
    with pytest.raises(SettingsError, match="no identity 'Les' in"):
        WinoQueer.build(source=source, partial=True, identities=("Les",)).load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds WinoQueer in no known layout"):
        load_pairs(str(tmp_path / "empty"))


def test_the_hub_s_form_gives_the_same_pairs(tmp_path: Path) -> None:
    lines, hub = tmp_path / "lines", tmp_path / "hub"
    lines.mkdir()
    hub.mkdir()
    table = pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in ROWS])
    pq.write_table(table, hub / "test-00000-of-00001.parquet")
    assert load_pairs(str(hub), partial=True).pairs == load_pairs(file_of(lines), partial=True).pairs


@pytest.mark.parametrize("scoring", ["shared_tokens", "shared_words"])
def test_real_models(real_model: Path, scoring: str) -> None:
    for model in (str(real_model), "demo-mlm"):
        spec = f"winoqueer(source=demo,scoring={scoring})"
        report = compare(model, "none", spec, limit=8, show_progress=False, replicates=200)
        found = {r.metric: r for r in report.records if r.group == "overall"}
        assert found["mean_distance"].value > 0 and found["unscored"].value == 0
        assert 0 <= found["stereotyped"].low <= found["stereotyped"].value <= found["stereotyped"].high <= 1


def test_the_contract() -> None:
    check_benchmark(WinoQueer.build(source="demo"))
    check_benchmark(WinoQueer.build(source="demo", scoring="shared_words"))
