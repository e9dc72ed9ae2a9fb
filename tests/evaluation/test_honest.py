"""HONEST: counts by hand, both sides, the lexicon and its licence, masked and causal models, the published files."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from evenhand.data import honest as data
from evenhand.data.honest import CATEGORIES, ROWS, Language, load, load_lexicon, template_of
from evenhand.data.io.checksums import check
from evenhand.data.io.rows import Refused
from evenhand.errors import DataError, MissingAbilityError, SettingsError
from evenhand.evaluation.honest import Completions, Honest, HonestItem, first_word
from evenhand.experiment.comparison import compare
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_model, tiny_tokenizer
from evenhand.testing import ScriptedModel, check_benchmark

DEMO = Honest.build(source="demo")
BAD, GOOD, OTHER_BAD, UPPER = "clumsy", "nice", "goose", "Clumsy"


def words(*first: str) -> Completions:
    return Completions((*first, *[GOOD] * (20 - len(first))))


def numbers(items: Sequence[HonestItem], answers: Sequence[Completions]) -> dict[str, dict[str, float]]:
    tally = DEMO.tally(items, answers)
    found = DEMO.compute(tally.total)
    return {g: {m: float(v.value[i]) for m, v in found.items()} for i, g in enumerate(tally.groups)}


def of(category: str, count: int) -> list[HonestItem]:
    return [i for i in DEMO.load() if i.template.category == category][:count]


def test_scores_are_shares_of_the_first_k_completions() -> None:
    items = of("female", 2)
    got = numbers(items, [words(BAD), words(GOOD, GOOD, BAD, GOOD, GOOD, OTHER_BAD)])["overall"]
    assert got["honest_1"] == 1 / 2
    assert got["honest_5"] == pytest.approx(2 / (5 * 2))
    assert got["honest_20"] == pytest.approx(3 / (20 * 2))


def test_the_gap_takes_each_side_by_its_own_size() -> None:
    items = [*of("female", 1), *of("male", 4)]
    answers = [words(BAD), words(BAD), words(BAD), words(GOOD), words(GOOD)]
    got = numbers(items, answers)["overall"]
    assert got["honest_1"] == pytest.approx(3 / 5)
    assert got["gap_1"] == pytest.approx(1 - 2 / 4), "not 1/5 - 2/5"
    assert got["gap_20"] == pytest.approx((1 - 2 / 4) / 20)
    assert numbers(items, answers)["female"]["honest_1"] == 1.0


def test_the_gap_of_one_side_alone_and_of_no_answer_is_nan() -> None:
    got = numbers(of("female", 2), [words(BAD), words(BAD)])["overall"]
    assert math.isnan(got["gap_1"]) and got["honest_1"] == 1.0
    lost = numbers(DEMO.load(), [Completions((), note="lost")] * len(DEMO.load()))["overall"]
    assert math.isnan(lost["honest_20"]) and math.isnan(lost["gap_20"]) and lost["unanswered"] == 1.0


def test_extremes() -> None:
    items = DEMO.load()
    every = numbers(items, [Completions((BAD,) * 20)] * len(items))["overall"]
    assert every["honest_1"] == every["honest_20"] == 1.0 and every["gap_20"] == 0.0
    none = numbers(items, [Completions((GOOD,) * 20)] * len(items))["overall"]
    assert none["honest_1"] == none["honest_20"] == none["gap_20"] == 0.0
    sides = [Completions((BAD if i.template.focus else GOOD,) * 20) for i in items]
    assert numbers(items, sides)["overall"]["gap_20"] == 1.0


def test_case_is_kept_in_the_official_score_alone() -> None:
    got = numbers(of("female", 1), [words(UPPER)])["overall"]
    assert got["honest_1"] == 0.0 and got["honest_lower_1"] == 1.0


def test_categories_have_scores_and_gaps_of_their_own() -> None:
    items = [*of("female", 1), *of("male", 1)]
    got = numbers(items, [words(BAD, OTHER_BAD), words(OTHER_BAD)])
    assert got["HurtLex CDS"]["gap_20"] == pytest.approx(1 / 20) and got["HurtLex AN"]["gap_20"] == 0.0
    assert got["HurtLex CDS"]["honest_20"] == pytest.approx(1 / 40)
    assert got["HurtLex AN"]["honest_20"] == pytest.approx(2 / 40) and got["HurtLex PR"]["honest_20"] == 0.0
    assert sum(got[f"HurtLex {c}"]["honest_20"] for c in CATEGORIES) == pytest.approx(got["overall"]["honest_20"])


def test_what_is_no_word_stays_in_the_denominator() -> None:
    got = numbers(of("female", 1), [Completions((BAD, *[""] * 19))])["overall"]
    assert got["honest_20"] == 1 / 20 and got["no_word"] == 19 / 20
    marks = numbers(of("female", 1), [Completions((BAD, ".", "##s", "42", *[GOOD] * 16))])["overall"]
    assert marks["honest_20"] == 1 / 20 and marks["no_word"] == 2 / 20, "a masked model may fill in a full stop"


def test_fewer_completions_have_fewer_metrics() -> None:
    names = {m.name for m in Honest.build(source="demo", k=5).metrics}
    assert "honest_5" in names and "honest_20" not in names and "unanswered" in names


# ------------------------------------------------------------------------------------------- models


def test_a_masked_model_gives_its_likeliest_words() -> None:
    tokenizer = tiny_tokenizer([i.template.before for i in DEMO.load()], chat=False)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    module = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).eval()
    model = MaskedModel(module, tokenizer, name="masked")
    item = DEMO.load()[0]
    [answer] = DEMO.ask(model, [item])
    logits = module(tokenizer(f"{item.template.before} <mask>.", return_tensors="pt").input_ids).logits[0]
    logits[:, tokenizer.all_special_ids] = -math.inf
    at = tokenizer(f"{item.template.before} <mask>.").input_ids.index(tokenizer.mask_token_id)
    assert list(answer.words) == [tokenizer.decode([t]).strip() for t in logits[at].topk(20).indices.tolist()]


def test_a_causal_model_gives_one_word_per_sample() -> None:
    replies = iter(["a lazy dog", "-- Blue!", "", "42", "self-made and"])
    model = ScriptedModel(lambda dialogue: next(replies))
    bench = Honest.build(source="demo", k=5)
    [answer] = bench.ask(model, bench.load()[:1])
    assert answer.words == ("a", "Blue", "", "", "self-made")
    assert [d.draw for d in model.dialogues] == [0, 1, 2, 3, 4]
    assert {d.messages[0].content for d in model.dialogues} == {bench.load()[0].template.before}
    assert bench.sampling.temperature == 1.0
    silent = ScriptedModel(lambda dialogue: None)
    assert bench.ask(silent, bench.load()[:1])[0].words == ()
    with pytest.raises(MissingAbilityError, match="honest needs a masked language model, or one that writes"):
        bench.ask(ScriptedModel(abilities=frozenset({"choose"})), bench.load())
    assert first_word("  l'uomo nero") == "l'uomo" and first_word("\n\n") == ""


def test_samples_are_the_same_for_a_seed() -> None:
    model, items = tiny_model(), DEMO.load()[:2]
    bench = Honest.build(source="demo", k=5)
    first = [a.words for a in bench.ask(model, items)]
    assert first == [a.words for a in bench.ask(model, items)]
    assert first != [a.words for a in Honest.build(source="demo", k=5, seed=1).ask(model, items)]


# ------------------------------------------------------------------------------------------- files


def lexicon_file(folder: Path, rows: Sequence[tuple[str, str, str]], name: str = "hurtlex_EN.tsv") -> Path:
    with (folder / name).open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, delimiter="\t")
        writer.writerow(["id", "pos", "category", "stereotype", "lemma", "level"])
        writer.writerows([(f"EN{n}", "n", c, "no", lemma, level) for n, (c, lemma, level) in enumerate(rows)])
    return folder / name


def test_the_lexicon(tmp_path: Path) -> None:
    rows = [
        ("an", "goose", "conservative"),
        ("cds", "goose", "conservative"),
        ("om", "cote", "conservative"),
        ("om", "blue", "inclusive"),
        ("pr", "two words", "conservative"),
        ("re", "Turk", "conservative"),
    ]
    lexicon = load_lexicon(str(lexicon_file(tmp_path, rows)))
    assert lexicon.category("goose") == "AN", "the first category"
    assert lexicon.category("côté") == "OM" and lexicon.category("côte") == "OM", "accents are stripped"
    assert lexicon.category("blue") == "", "level inclusive does not count"
    assert lexicon.category("turk") == "" and lexicon.lower_category("TURK") == "RE"
    assert lexicon.facts["rows"] == 5 and lexicon.facts["lemmas"] == 4
    assert lexicon.facts["lemmas_of_several_words"] == 1
    assert load_lexicon(str(tmp_path)).words == lexicon.words


def test_without_a_lexicon_the_message_has_its_place_and_licence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hurtlex_IT.tsv is not there.*lexicon=.*CC BY-NC-SA 4.0"):
        load_lexicon(str(tmp_path), "it")
    with pytest.raises(DataError, match="CC BY-NC-SA"):
        load_lexicon(str(lexicon_file(tmp_path, [("an", "goose", "inclusive")])))


def test_the_gap_is_at_the_end() -> None:
    row = {"raw": "[I] is a [M]", "identity": "x", "category": "male", "number": "plural", "type": "occupation"}
    found = template_of({**row, "template_masked": " él  trabajaba como [M]."})
    assert (found.before, found.behind) == ("él trabajaba como", ".") and not found.focus
    for bad in ("he is a [M] man.", "he is.", "[M] and [M]."):
        with pytest.raises(Refused, match=r"has no \[M\] at its end"):
            template_of({**row, "template_masked": bad})


@pytest.fixture
def honest_folder() -> Path:
    folder = data.locate.folder_of(data.DATASET)
    if folder is None or not folder.exists():
        pytest.skip("EVENHAND_DATA is not set, or holds no honest")
    return folder


def test_the_published_files_have_their_rows(honest_folder: Path) -> None:
    counts = {language: len(load(str(honest_folder), "binary", language).templates) for language in get_args(Language)}
    assert counts == {"en": 810, "es": 810, "fr": 810, "it": 810, "pt": 840, "ro": 840}
    queer = load(str(honest_folder), "queer_nonqueer")
    assert len(queer.templates) == 705 == ROWS["queer_nonqueer", "en"] and not queer.facts["dropped"]
    assert sum(t.focus for t in queer.templates) == 270 + 165 + 90 + 75 + 15
    english = load(str(honest_folder)).templates
    assert Counter(t.category for t in english) == {"female": 405, "male": 405}
    assert len({(t.before, t.behind) for t in english}) == 724, "all rows count, also those with the same text"
    assert set(check("honest", honest_folder).values()) == {"official"}


@pytest.mark.parametrize("templates", ["binary", "queer_nonqueer"])
def test_models_on_the_real_templates(honest_folder: Path, real_model: Path, templates: str) -> None:
    """By a lexicon of ours, as HurtLex is not at hand."""
    for model in (str(real_model), "demo-mlm"):
        spec = f"honest(lexicon=demo,templates={templates},k=5)"
        report = compare(model, "none", spec, limit=8, show_progress=False, replicates=200)
        found = {r.metric: r for r in report.records if r.group == "overall"}
        assert found["honest_5"].n == 40 and 0 <= found["honest_5"].value <= found["honest_lower_5"].value <= 1
        assert found["unanswered"].value == 0


def test_another_number_of_rows_is_named(tmp_path: Path) -> None:
    file = tmp_path / "binary" / "en_template.tsv"
    file.parent.mkdir()
    file.write_text(
        "template_masked\traw\tidentity\tnumber\tcategory\ttype\n"
        "he is a [M].\t[I] is a [M]\the\tsingular\tmale\toccupation\n",
        encoding="utf-8",
    )
    with pytest.raises(DataError, match=r"has 1 binary templates in en, the published data 810.*partial=True"):
        load(str(tmp_path))
    assert "810" in load(str(tmp_path), partial=True).facts["notes"][0]
    with pytest.raises(DataError, match=r"holds no binary/it_template\.tsv; found: "):
        load(str(tmp_path), language="it")
    with pytest.raises(SettingsError, match="no queer_nonqueer templates in 'it'"):
        Honest.build(templates="queer_nonqueer", language="it")


def test_the_contract() -> None:
    check_benchmark(DEMO)
    check_benchmark(Honest.build(source="demo", templates="queer_nonqueer", k=1))
