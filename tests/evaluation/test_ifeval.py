"""IFEval's numbers by hand, its reading of files, and the contract of a benchmark."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evenhand.data.ifeval import ARGUMENTS, Prompt, load_prompts
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.ifeval import IFEval, IFEvalItem
from evenhand.evaluation.metrics import ifeval_checkers
from evenhand.interfaces import Reply
from evenhand.models.loading import load
from evenhand.proving_ground.generator.planted import FAMILY
from evenhand.proving_ground.oracle import Oracle
from evenhand.testing import ScriptedModel, check_benchmark

pytestmark = pytest.mark.skipif(not ifeval_checkers.available(), reason="the extra ifeval is not installed")
COUNTS = {
    "capital_word_frequency": 25,
    "english_capital": 25,
    "english_lowercase": 39,
    "repeat_prompt": 41,
    "two_responses": 24,
    "number_placeholders": 27,
    "postscript": 26,
    "constrained_response": 10,
    "json_format": 17,
    "multiple_sections": 14,
    "number_bullet_lists": 31,
    "number_highlighted_sections": 48,
    "title": 37,
    "existence": 39,
    "forbidden_words": 49,
    "frequency": 42,
    "letter_frequency": 33,
    "response_language": 31,
    "nth_paragraph_first_word": 12,
    "number_paragraphs": 27,
    "number_sentences": 52,
    "number_words": 52,
    "no_comma": 66,
    "end_checker": 26,
    "quotation": 41,
}


def item(key: int, *instructions: tuple[str, dict[str, Any]]) -> IFEvalItem:
    prompt = Prompt(key, f"prompt {key}", tuple(i for i, _ in instructions), tuple(a for _, a in instructions))
    return IFEvalItem(str(key), str(key), prompt)


NO_COMMA: tuple[str, dict[str, Any]] = ("punctuation:no_comma", {})
QUOTED: tuple[str, dict[str, Any]] = ("startend:quotation", {})
ENDING: tuple[str, dict[str, Any]] = ("startend:end_checker", {"end_phrase": "the end"})


def values(items: list[IFEvalItem], answers: list[Reply], **given: Any) -> dict[str, dict[str, float]]:
    bench = IFEval.build(source="demo", **given)
    tally = bench.tally(items, answers)
    found = bench.compute(tally.total)
    return {g: {name: float(m.value[i]) for name, m in found.items()} for i, g in enumerate(tally.groups)}


def test_the_four_official_scores_by_hand() -> None:
    items = [item(1, NO_COMMA), item(2, NO_COMMA, QUOTED), item(3, NO_COMMA, QUOTED, ENDING), item(4, QUOTED)]
    answers = [
        Reply("a b"),  # 1 of 1
        Reply('Sure,\n"a b"'),  # strict 0 of 2 (a comma; opens with S), loosely 2 of 2 (without the first line)
        Reply('"a, b the end"'),  # quoted and ends so, but a comma: 2 of 3, in every reading
        Reply("a"),  # 0 of 1
    ]
    got = values(items, answers)
    assert got["overall"]["prompt_strict"] == 1 / 4
    assert got["overall"]["prompt_loose"] == 2 / 4
    assert got["overall"]["instruction_strict"] == pytest.approx(3 / 7)
    assert got["overall"]["instruction_loose"] == pytest.approx(5 / 7)
    assert got["punctuation:no_comma"]["instruction_strict"] == pytest.approx(1 / 3)
    assert got["startend"]["instruction_strict"] == pytest.approx(2 / 4)
    assert got["startend"]["prompt_strict"] == pytest.approx(1 / 3), "within a group only its instructions count"
    assert set(got) == {"overall", "punctuation", "startend", *(i for i, _ in (NO_COMMA, QUOTED, ENDING))}


@pytest.mark.parametrize(("text", "share"), [("a b", 1.0), ("a, b", 0.0)])
def test_all_and_none(text: str, share: float) -> None:
    got = values([item(1, NO_COMMA), item(2, NO_COMMA, NO_COMMA)], [Reply(text)] * 2)["overall"]
    assert {got[f"{kind}_{how}"] for kind in ("prompt", "instruction") for how in ("strict", "loose")} == {share}


def test_blank_missing_cut_and_thinking_replies() -> None:
    replies = [
        Reply(None, finished=False),
        Reply("  \n"),
        Reply("<think>a b"),  # never closed: nothing is left
        Reply("<think>one, two</think>a b"),  # what was thought does not count
        Reply("a b", finished=False),
    ]
    got = values([item(n, NO_COMMA) for n in range(5)], replies)["overall"]
    assert got["prompt_strict"] == got["instruction_loose"] == 2 / 5
    assert (got["unanswered"], got["blank"], got["cut"]) == (1 / 5, 2 / 5, 1 / 5)


def test_undetected_languages_and_failing_checkers_are_counted() -> None:
    items = [
        item(1, ("language:response_language", {"language": "de"})),
        item(2, ("detectable_format:json_format", {})),
    ]
    got = values(items, [Reply("123"), Reply("[" * 200_000)])
    assert got["overall"]["instruction_strict"] == got["overall"]["undetected"] == got["overall"]["errors"] == 1 / 2
    assert got["language"]["prompt_strict"] == 1.0 and got["detectable_format"]["prompt_strict"] == 0.0


def test_symbols_are_counted_where_the_rows_are_repaired() -> None:
    hashes = item(1122, ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}))
    assert values([hashes], [Reply("# #")], odd_rows="repaired")["overall"]["prompt_strict"] == 1.0
    assert values([hashes], [Reply("#")], odd_rows="repaired")["overall"]["prompt_loose"] == 0.0
    assert values([hashes], [Reply("# #")], odd_rows="official")["overall"]["prompt_strict"] == 0.0
    few = item(1, ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "less than"}))
    assert values([few, few], [Reply("a!"), Reply("!!")], odd_rows="repaired")["overall"]["prompt_strict"] == 0.5


def test_the_prompt_is_asked_as_it_stands_all_in_one_call() -> None:
    class Counting(ScriptedModel):
        calls = 0

        def generate(self, dialogues: Any, sampling: Any = None) -> list[Reply]:
            self.calls += 1
            assert (sampling.temperature, sampling.max_new_tokens) == (0.0, 1280)
            return super().generate(dialogues, sampling)

    bench = IFEval.build(source="demo")
    model = Counting()
    bench.ask(model, bench.load())
    assert model.calls == 1 and len(model.dialogues) == 72
    assert [(m.role, m.content) for m in model.dialogues[0].messages] == [
        ("user", "Write about the sea. Do not use any commas.")
    ]


def test_keeps_the_contract() -> None:
    check_benchmark(IFEval.build(source="demo", max_new_tokens=12), limit=80)


def test_the_planted_shares_come_out() -> None:
    bench = IFEval.build(source="demo")
    oracle = Oracle(FAMILY["demo"])
    tally = bench.tally(bench.load(), bench.ask(oracle, bench.load()))
    strict = dict(zip(tally.groups, bench.compute(tally.total)["prompt_strict"].value.tolist(), strict=True))
    assert {name: strict[name] for name in FAMILY["demo"].follows} == dict(FAMILY["demo"].follows)


def test_a_real_model_answers(real_model: Path) -> None:
    bench = IFEval.build(source="demo", max_new_tokens=16)
    items = bench.load()[::18]
    answers = bench.ask(load(str(real_model)), items)
    got = bench.compute(bench.tally(items, answers).total)
    assert all(a.text for a in answers)
    assert 0.0 <= float(got["instruction_strict"].value[0]) <= float(got["instruction_loose"].value[0]) <= 1.0


# ------------------------------------------------------------------------------------------------- the real prompts


def test_the_official_prompts(real_ifeval: Path) -> None:
    found = load_prompts(str(real_ifeval))
    counts = Counter(i.partition(":")[2] for p in found.prompts for i in p.instructions)
    assert (len(found.prompts), counts, found.facts["official"], found.facts["dropped"]) == (541, COUNTS, True, [])
    assert Counter(len(p.instructions) for p in found.prompts) == {1: 305, 2: 179, 3: 57}
    facts = IFEval.build(source=str(real_ifeval)).facts()
    assert "[1122, 1129]" in facts["odd_rows"] and "[1174]" in facts["odd_rows"]


def test_every_official_checker_can_be_asked(real_ifeval: Path) -> None:
    bench = IFEval.build(source=str(real_ifeval), sentences="built_in")
    items = bench.load()
    replies = [Reply('Sure, here it is:\n"it is a small world"')] * len(items)
    first = bench.tally(items, replies)
    ifeval_checkers._strict.cache_clear()
    again = bench.tally(items, replies)
    assert (first.sums == again.sums).all(), "the same responses score the same every time"
    assert len(first.groups) == 1 + 9 + 25
    strict, loose = (bench.compute(first.total)[f"instruction_{how}"].value[0] for how in ("strict", "loose"))
    assert 0.0 < strict < loose < 1.0
    assert bench.compute(first.total)["errors"].value[0] == 0.0


def test_key_1174_follows_its_text_where_repaired(real_ifeval: Path) -> None:
    def relation(how: Any) -> str:
        found = {p.key: p for p in load_prompts(str(real_ifeval), how).prompts}
        return str(found[1174].arguments[0]["let_relation"])

    assert (relation("official"), relation("repaired")) == ("less than", "at least")


# ------------------------------------------------------------------------------------------------------- bad files


def row(key: Any = 1, name: str = "keywords:existence", **arguments: Any) -> dict[str, Any]:
    return {"key": key, "prompt": "Write.", "instruction_id_list": [name], "kwargs": [arguments]}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({**row(), "kwargs": None}, "kwargs is null, not a list"),
        ({**row(), "kwargs": [None]}, r"kwargs\[0\] \(keywords:existence\): null, but it needs keywords"),
        (row(keywords=None), "keywords is null or missing"),
        (row(keywords=["c++++", "("]), "not a regular expression"),
        (row(keywords="moon"), "not a list of words"),
        (row("7a", keywords=["moon"]), "key '7a' is not a whole number"),
        (row(name="keywords:nothing"), "'keywords:nothing', which is none of IFEval's types"),
        (row(name="punctuation:no_comma", comma=1), "unknown argument 'comma'"),
        (row(name="length_constraints:number_words", num_words=5, relation="more"), "neither 'less than' nor"),
        (row(name="length_constraints:number_words", num_words="5", relation="at least"), "is not a count"),
        ({**row(keywords=["a"]), "instruction_id_list": ["punctuation:no_comma"] * 2}, "1 entries for 2 instructions"),
        ({**row(keywords=["a"]), "prompt": " "}, "prompt is not a text"),
        ({"key": 1}, "field 'prompt' is missing"),
        (row(5, keywords=["moon"]), "key 5 occurs twice"),
    ],
)
def test_a_bad_row_is_named_and_costs_nothing_else(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    file = tmp_path / "input_data.jsonl"
    file.write_text("\n".join(map(json.dumps, (row(5, keywords=["sun"]), bad, row(6, keywords=["sea"])))))
    found = load_prompts(str(tmp_path))
    assert [p.key for p in found.prompts] == [5, 6]
    assert len(found.facts["dropped"]) == 1 and found.facts["dropped"][0].startswith(f"{file}:2: ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.facts["dropped"][0])


def test_the_hubs_nulls_are_left_out(tmp_path: Path) -> None:
    spelled = {argument: None for arguments in ARGUMENTS.values() for argument in arguments}
    rows = [row(1, "punctuation:no_comma", **spelled), row(2, **{**spelled, "keywords": ["sun"]})]
    rows.append({**row(3, "startend:quotation"), "kwargs": [None]})
    (tmp_path / "ifeval_input_data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [p.arguments for p in load_prompts(str(tmp_path)).prompts] == [({},), ({"keywords": ["sun"]},), ({},)]


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"{}\n"])
def test_a_file_without_a_usable_row_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "input_data.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="no usable IFEval row"):
        load_prompts(str(tmp_path))


def test_missing_checkers_are_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifeval_checkers, "available", lambda: False)
    with pytest.raises(DataError, match=r"evenhand\[ifeval\]"):
        IFEval.build(source="demo").load()


@pytest.mark.parametrize("given", [{"temperature": -1}, {"max_new_tokens": 0}, {"odd_rows": "none"}])
def test_settings_that_make_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        IFEval.build(**given)


@pytest.fixture
def real_ifeval() -> Path:
    import os

    folder = Path(os.environ.get("EVENHAND_DATA", "")) / "ifeval"
    if "EVENHAND_DATA" not in os.environ or not folder.exists():
        pytest.skip("EVENHAND_DATA is not set, or has no ifeval")
    return folder
