"""What methods fit on: how it is read, and that nothing of it is asked."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from evenhand.core import registry
from evenhand.data.pairs import apart, question_pair, stereoset_pair, stereoset_text, winogender_pair
from evenhand.data.parts import clusters_of
from evenhand.data.stereoset import Example, load_examples
from evenhand.data.winogender import Schema, Shares
from evenhand.errors import DataError, SettingsError
from evenhand.experiment import training_data
from evenhand.experiment.comparison import compare
from evenhand.experiment.decontamination import RUN, Asked
from evenhand.experiment.training_data import digest, load, without
from evenhand.interfaces import Choice, Dialogue, Message, Method, Model, Pair, Question, TrainData, settings
from evenhand.models import Mitigated
from evenhand.proving_ground.generator import practice_bias
from evenhand.proving_ground.generator.practice import KINDS, practice

RED = {"question": "Which?", "options": ["red", "blue"], "answer": "blue", "context": "A sky.", "id": "one"}

PAIR = Pair(" he", " she", "The nurse said that", " was late.", "gender", "p")


def lines(folder: Path, *rows: Any) -> Path:
    file = folder / "train.jsonl"
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return file


def test_a_file_of_questions_and_texts(tmp_path: Path) -> None:
    file = lines(tmp_path, RED, {"question": "Who?", "options": ["a", "b", "c"]}, "", {"text": "A text."})
    data = load(file).data
    assert data.questions[0] == Question("one", "Which?", ("red", "blue"), context="A sky.")
    assert data.questions[1].id == f"{file}:2"
    assert data.answers == (1, None)
    assert data.texts == ("A text.",)
    (tmp_path / "texts.txt").write_text("One\nline.\n\nTwo.\n\n\n")
    assert load(tmp_path / "texts.txt").data.texts == ("One\nline.", "Two.")


def test_a_benchmark_object_is_read_as_its_name_is() -> None:
    benchmark = registry.build_benchmark("mmlu(source=demo)")
    assert load(benchmark) == load("mmlu(source=demo)")
    assert load([benchmark, TrainData(texts=("A text.",))]).data.texts == ("A text.",)
    with pytest.raises(SettingsError, match="crows_pairs has no multiple-choice questions to train on"):
        load(registry.build_benchmark("crows_pairs(source=demo)"))


@pytest.mark.parametrize("what", [5, {"texts": ["a"]}, ["demo:texts:3", 5]])
def test_what_is_no_training_data_is_told_what_is(what: Any) -> None:
    with pytest.raises(SettingsError, match=r"train=.* \((int|dict)\) is not training data: give a file"):
        load(what)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "train.jsonl:1 is not JSON"),
        ([1], "an object"),
        ({**RED, "answr": 1}, "unknown key 'answr'"),
        ({**RED, "options": ["red"]}, "at least two texts"),
        ({**RED, "answer": "green"}, "'green': neither"),
        ({**RED, "answer": 2}, "2: neither"),
        ({**RED, "answer": True}, "True: neither"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(lines(tmp_path, row))


def test_what_is_no_training_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than once"):
        load(lines(tmp_path, RED, RED))
    with pytest.raises(DataError, match="no training file"):
        load("missing.jsonl")
    with pytest.raises(SettingsError, match="no practice questions of kind 'bbc'"):
        load("demo:bbc")
    with pytest.raises(SettingsError, match="no multiple-choice questions"):
        load("perplexity(source=demo)")


@pytest.mark.parametrize("name", ["bbq(source=demo)", "mmlu(source=demo)", "gpqa(source=demo)"])
def test_a_benchmark_gives_its_questions_with_the_right_answers(name: str) -> None:
    benchmark = registry.build_benchmark(name)
    items, data = benchmark.load(), load(name).data
    assert data.questions == tuple(i.question for i in items)
    answers = [Choice(a) for a in data.answers]
    assert all(m.right for m in benchmark.grades(items, answers) or ())


@pytest.mark.parametrize("kind", KINDS)
def test_practice_is_like_a_benchmark_and_asks_none_of_it(kind: Any) -> None:
    data = practice(kind, 400)
    assert len({(q.context, q.question, frozenset(q.options)) for q in data.questions}) == 400
    asked = [(b, b.load()) for b in (registry.build_benchmark(f"{n}(source=demo)") for n in ("bbq", "mmlu", "gpqa"))]
    assert without(training_data.Loaded(data), asked).left_out == 0
    assert practice(kind, 50) == TrainData(data.questions[:50], data.answers[:50])
    assert practice(kind, 50, seed=1) != practice(kind, 50)


def test_what_is_asked_is_left_out_by_text_and_by_template() -> None:
    benchmark = registry.build_benchmark("bbq(source=demo)")
    items = list(benchmark.load())
    asked = [(benchmark, items[:1])]
    loaded = load("bbq(source=demo)")
    kept = without(loaded, asked)
    same = sum(i.cluster == items[0].cluster for i in items)
    assert 1 < same < 100
    assert kept.left_out == same
    question = items[0].question
    spelled = replace(question, id="x", context=f" {question.context.upper()}", options=question.options[::-1])
    other = replace(question, id="y", options=("Someone", "Nobody", "Anybody"))
    text = f"{question.context} {question.question}"
    found = without(training_data.Loaded(TrainData((spelled, other), (0, None), (text, "another"))), asked)
    assert (found.data, found.left_out) == (TrainData((other,), (None,), ("another",)), 2)
    assert asdict(found.data.overlap_removed) == {"questions": 1, "texts": 1, "pairs": 0}
    with pytest.raises(SettingsError, match="nothing is left"):
        without(loaded, [(benchmark, items)])


def test_the_digest_covers_questions_answers_and_texts() -> None:
    question = Question("q", "Which?", ("a", "b"))
    some = [
        TrainData((question,), (0,)),
        TrainData((question,), (1,)),
        TrainData((question.reordered((1, 0)),), (0,)),
        TrainData((), (), ("q",)),
        TrainData(pairs=(PAIR,)),
        TrainData(pairs=(PAIR._replace(prompt=Dialogue((Message("user", PAIR.prompt),))),)),
        TrainData(pairs=(PAIR._replace(stereotyped=PAIR.counter_stereotyped, counter_stereotyped=PAIR.stereotyped),)),
    ]
    assert len({digest(data) for data in some}) == 7


@settings
class Memory(Method):
    """Answers questions of training as they were answered there."""

    name = "memory"
    needs_data = True

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        assert data is not None
        seen.append(data)
        return Mitigated(model, self, depends_on=[digest(data)])


seen: list[TrainData] = []


def test_compare_hands_training_data_to_a_method_once(tmp_path: Path) -> None:
    seen.clear()
    options: dict[str, Any] = {"limit": 20, "replicates": 200, "show_progress": False}
    benchmarks = "bbq(source=demo),mmlu(source=demo)"
    with pytest.warns(UserWarning, match="training items out"):
        report = compare(
            "demo", [Memory()], benchmarks, out=tmp_path, train=TrainData((*_one_asked(), RED_QUESTION)), **options
        )
    assert seen == [TrainData((RED_QUESTION,), (None,))]
    assert report.manifest["train"] == {
        "questions": 1,
        "texts": 0,
        "pairs": 0,
        "left_out": 1,
        "left_out_by_kind": {"questions": 1, "texts": 0, "pairs": 0},
        "sha256": digest(seen[0]),
    }
    assert [a["method"] for a in report.manifest["applied"]] == ["none", "memory"]
    without_data = compare("demo", [Memory()], "bbq(source=demo)", **options)
    refused = [r for r in without_data.records if r.method == "memory"]
    assert refused
    assert all(r.status == "not applicable" and "--train" in r.note for r in refused)


RED_QUESTION = Question("one", "Which?", ("red", "blue"), context="A sky.")


def _one_asked() -> tuple[Question, ...]:
    from evenhand.experiment.subsampling import subsample

    bbq = registry.build_benchmark("bbq(source=demo)")
    return (subsample(bbq.load(), 20, 0, bbq.stratum)[0].question,)


def test_so_many_practice_questions_of_a_kind() -> None:
    assert load("demo:gpqa:40").data == practice("gpqa", 40)
    for wrong in ("demo:gpqa:0", "demo:gpqa:many"):
        with pytest.raises(SettingsError, match="not a number of items"):
            load(wrong)


# ----------------------------------------------------------------------------------------------------- pairs


def test_a_file_of_pairs(tmp_path: Path) -> None:
    file = lines(tmp_path, PAIR._asdict(), {"stereotyped": "a b", "counter_stereotyped": "c"}, {"text": "A text."})
    data = load(file).data
    assert data.pairs == (PAIR, Pair("a b", "c", id=f"{file}:2"))
    assert data.texts == ("A text.",)
    for row, message in (
        ({"stereotyped": "a"}, '"counter_stereotyped" of a pair'),
        ({"stereotyped": " ", "counter_stereotyped": "b"}, '"stereotyped" of a pair'),
        ({"stereotyped": "a", "counter_stereotyped": "a"}, "both sides of the pair are 'a'"),
        ({"stereotyped": "a", "counter_stereotyped": "b", "prompt": 3}, '"prompt" of a pair must be a text, not 3'),
    ):
        with pytest.raises(DataError, match=message):
            load(lines(tmp_path, row))


@pytest.mark.parametrize(
    ("one", "two", "parts"),
    [
        ("The cook said he was late.", "The cook said she was late.", ("The cook said", " he", " she", " was late.")),
        ("He left.", "She left.", ("", "He", "She", " left.")),
        ("All men lie.", "All women and girls lie.", ("All", " men", " women and girls", " lie.")),
        ("Poor people lie.", "Poor rich people lie.", ("Poor", " people", " rich people", " lie.")),
        ("He is calm", "He is", ("He", " is calm", " is", "")),
        ("a a", "a a a", ("a", " a", " a a", "")),
        ("one", "two three", ("", "one", "two three", "")),
        ("one two", "one  two", None),
    ],
)
def test_two_texts_come_apart_where_their_words_differ(
    one: str, two: str, parts: tuple[str, str, str, str] | None
) -> None:
    for swapped in (False, True):
        found = apart(two, one) if swapped else apart(one, two)
        if parts is None:
            assert found is None
            continue
        prompt, first, second, after = parts
        assert found == (Pair(second, first, prompt, after) if swapped else Pair(first, second, prompt, after))
        assert found is not None
        assert found.prompt + found.stereotyped + found.suffix == (two if swapped else one)  # type: ignore[operator]
        assert found.prompt + found.counter_stereotyped + found.suffix == (one if swapped else two)  # type: ignore[operator]


def test_ambiguous_questions_become_pairs_of_letters() -> None:
    benchmark = registry.build_benchmark("bbq(source=demo)")
    items = {i.question.id: i for i in benchmark.load()}
    loaded = load("pairs:bbq(source=demo)")
    found = loaded.data.pairs
    assert len(found) == sum(not i.disambiguated and i.target is not None for i in items.values())
    for pair, cluster in zip(found, loaded.clusters.pairs, strict=True):
        item = items[pair.id]
        shown = dict(part.split(": ", 1) for part in str(pair.prompt).split("options: ")[1][:-16].split("; "))
        counter = 3 - item.target - item.unknown
        assert shown == {
            pair.stereotyped.strip(): item.question.options[item.target],
            pair.counter_stereotyped.strip(): item.question.options[counter],
        }
        assert (pair.axis, cluster) == (item.category, f"bbq/{item.cluster}")
        assert str(pair.prompt).startswith(f"{item.question.context} {item.question.question} Choose")
    first = sum(pair.stereotyped == " A" for pair in found) / len(found)
    assert 0.45 < first < 0.55
    assert {p.id for p in load("pairs:bbq(source=demo,axes=['Age'])").data.pairs} < {p.id for p in found}


def test_the_letter_of_a_pair_follows_the_question_and_the_seed() -> None:
    question = Question("q", "Who?", ("x", "Unknown", "z"), context="There.")
    pair = question_pair(question, 2, 1)
    assert pair == question_pair(question, 2, 1)
    turned = next(p for p in (question_pair(question, 2, 1, seed) for seed in range(1, 99)) if p.prompt != pair.prompt)
    assert (turned.stereotyped, turned.counter_stereotyped) == (pair.counter_stereotyped, pair.stereotyped)
    options = {" A": "A: z; B: x.", " B": "A: x; B: z."}
    for p in (pair, turned):
        assert (
            p.prompt == f"There. Who? Choose among the following two options: {options[p.stereotyped]} Answer: Option"
        )


def test_pairs_of_pronouns_have_the_majority_first() -> None:
    schema = Schema("nurse", "boss", False, "He left.", "She left.", "They left.")
    for shares, first in (
        (Shares(0.9, 0.1), "She"),
        (Shares(0.2, 0.9), "He"),
        (Shares(0.5, 0.6), "She"),
        (Shares(0.5, 0.5), "He"),
    ):
        pair = winogender_pair(schema, shares, "n")
        assert pair == Pair(first, "He" if first == "She" else "She", "", " left.", "gender", "n")
    for texts, first in ((0.499, "He"), (0.5, "She")):  # the released rule of PCGU: dataset.py, stat_pcts[occ] < 50
        pair = winogender_pair(schema, Shares(1 - texts, texts), "n", "texts")
        assert pair is not None and pair.stereotyped == first
    assert len(load("pairs:winogender(source=demo)").data.pairs) == 18 * 4


def test_stereoset_gives_pairs_and_biased_texts() -> None:
    within = Example(
        "intrasentence", "men", "gender", "Men are BLANK.", "Men are rude.", "Men are kind.", "Men are up."
    )
    between = Example("intersentence", "men", "gender", "A man came.", "He was rude.", "He was kind.", "Up it is.")
    assert stereoset_pair(within, "n") == Pair(" rude.", " kind.", "Men are", "", "gender", "n")
    assert stereoset_pair(between, "n") == Pair(" He was rude.", " He was kind.", "A man came.", "", "gender", "n")
    assert stereoset_text(within) == "Men are rude."
    assert stereoset_text(between) == "A man came. He was rude."
    examples = load_examples("demo").examples
    few, more = (load(f"stereoset:{name}(source=demo)") for name in ("tv2k", "tv14k"))
    assert len(few.data.texts) == sum(e.kind == "intersentence" for e in examples)
    assert len(more.data.texts) == len(examples)
    assert set(few.data.texts) < set(more.data.texts)
    with pytest.raises(SettingsError, match="tv14k"):
        load("stereoset:tv15k")
    with pytest.raises(SettingsError, match="no example of the kind intersentence"):
        load("stereoset:tv2k(source=demo,kind=intrasentence)")


def test_nobody_trains_on_crows_pairs() -> None:
    with pytest.raises(SettingsError, match="nobody trains on it"):
        load("pairs:crows_pairs")
    assert load("pairs:crows_pairs(source=demo)").data.pairs
    with pytest.raises(SettingsError, match=r"pairs:mmlu: no pairs.*pairs:bbq, pairs:winogender"):
        load("pairs:mmlu(source=demo)")


@pytest.mark.skipif("EVENHAND_DATA" not in os.environ, reason="the published sets are not there")
def test_the_published_sizes() -> None:
    assert len(load("stereoset:tv2k").data.texts) == 2123
    labour, texts = (load(f"pairs:winogender{given}").data.pairs for given in ("", "(majority_by=texts)"))
    assert len(labour) == 240
    assert sum(one != other for one, other in zip(labour, texts, strict=True)) == 80


# --------------------------------------------------------------------------------------------------- sources


def test_several_sources_are_one(tmp_path: Path) -> None:
    file = lines(tmp_path, RED, PAIR._asdict(), {"text": "A text."})
    joined = load(f"demo:gpqa:3 & {file} & demo:pairs:age:2").data
    assert joined == load(["demo:gpqa:3", file, "demo:pairs:age:2"]).data
    assert joined.questions == (*practice("gpqa", 3).questions, RED_ONE)
    assert joined.answers == (*practice("gpqa", 3).answers, 1)
    assert joined.texts == ("A text.",)
    assert joined.pairs == (PAIR, *practice_bias.pairs("Age", 2))
    again = load([file, TrainData((RED_ONE,), (), ("A text.",), (PAIR,))]).data
    assert again == TrainData((RED_ONE,), (1,), ("A text.", "A text."), (PAIR,))
    with pytest.raises(DataError, match="the id 'one' is there more than once"):
        load([file, TrainData((replace(RED_ONE, context=""),))])
    for nothing in ([], " & "):
        with pytest.raises(SettingsError, match="no training data is named"):
            load(nothing)
    odd = tmp_path / "this & that.txt"
    odd.write_text("One.")
    assert load(str(odd)).data.texts == ("One.",)


def test_clusters_stay_with_their_items_when_sources_are_joined() -> None:
    loaded = load("demo:texts:2 & stereoset:tv2k(source=demo) & pairs:winogender(source=demo) & demo:pairs:3")
    assert loaded.clusters.questions == ()
    assert loaded.clusters.texts[:3] == ("", "", "stereoset/profession/nurse")
    assert len(loaded.clusters.texts) == len(loaded.data.texts)
    assert loaded.clusters.pairs[0].startswith("winogender/")
    assert loaded.clusters.pairs[-3:] == ("", "", "")


# --------------------------------------------------------------------------------------------------- leakage


def asked_of(*specs: str) -> list[tuple[Any, Any]]:
    return [(b, b.load()) for b in map(registry.build_benchmark, specs)]


def test_half_of_a_benchmark_is_left_to_train_on() -> None:
    for name, train in (
        ("bbq", "pairs:bbq"),
        ("stereoset", "stereoset:tv2k"),
        ("stereoset", "pairs:stereoset"),
        ("winogender", "pairs:winogender"),
    ):
        everything = load(f"{train}(source=demo)")
        test = asked_of(f"{name}(source=demo,part=test)")
        kept = without(everything, test)
        half = load(f"{train}(source=demo,part=fit)").data
        assert kept.data == half
        assert without(load(f"{train}(source=demo,part=fit)"), test).left_out == 0
        with pytest.raises(SettingsError, match=rf"limit.*{name}\(part=test\).*part=fit"):
            without(everything, asked_of(f"{name}(source=demo)"))


def test_a_term_is_left_out_whichever_kind_of_its_examples_is_asked() -> None:
    (benchmark, items), *_ = asked_of("stereoset(source=demo,kind=intrasentence)")
    loaded = load("stereoset:tv2k(source=demo)")
    kept = without(loaded, [(benchmark, items[:3])])
    assert kept.out == {"questions": 0, "texts": 3, "pairs": 0}


@pytest.mark.parametrize("name", ["crows_pairs", "winogender", "winobias", "redditbias", "stereoset", "holistic_bias"])
def test_sentences_of_every_set_are_found_in_texts_and_pairs(name: str) -> None:
    (benchmark, items), *_ = asked_of(f"{name}(source=demo)")
    passages: list[Any] = []

    class Listener:
        def score(self, asked: Any) -> Any:
            passages.extend(asked)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark.ask(Listener(), items[:5])
    texts = [p.prompt + p.continuation for p in passages]
    texts = [t for t in dict.fromkeys(texts) if t.endswith(".") and len(t.split()) > 3]
    assert texts
    asked = Asked([(benchmark, items[:5])])
    for text in texts:
        assert asked.has_text(text)
        assert asked.has_text(f"Before it. {text.upper()}  After it.")
        assert asked.has_pair(Pair(text, "Another one."))
        assert asked.has_pair(Pair("one", " ".join(text.split()[-1:]), " ".join(text.split()[:-1]) + " "))
    assert not asked.has_text("This one is about nothing that anybody asks.")


def test_a_piece_of_an_asked_document_is_found_by_a_run_of_words(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(60)]
    (tmp_path / "asked.txt").write_text(" ".join(words))
    asked = Asked(asked_of(f"perplexity(source='{tmp_path / 'asked.txt'}',window=40,stride=40)"))
    assert asked.has_text("new " + " ".join(words[10 : 10 + RUN]) + " new")
    assert not asked.has_text("new " + " ".join(words[10 : 9 + RUN]) + " new")


def test_short_sentences_and_beginnings_may_lie_in_others() -> None:
    benchmark = registry.build_benchmark("crows_pairs(source=demo)")
    item = replace(benchmark.load()[0], plans=("The nurse said that", "He was late.", "!"))  # type: ignore[type-var]
    asked = Asked([(benchmark, [item])])
    assert not asked.has_text("The nurse said that she was tired. He was late.")
    assert asked.has_text("he was late")
    assert not asked.has_text("...")
    assert asked.has_pair(PAIR)
    assert not asked.has_pair(PAIR._replace(prompt="The cook said that"))


def test_dialogues_and_questions_of_pairs_are_compared() -> None:
    (benchmark, items), *_ = asked_of("bbq(source=demo)")
    bare = load("pairs:bbq(source=demo)").data.pairs  # as from a file: no clusters
    own = next(p for p in bare if p.id == items[0].question.id)
    dialogue = own._replace(prompt=Dialogue((Message("user", str(own.prompt)),)))
    fresh = practice_bias.pairs("Age", 3)
    kept = without(training_data.Loaded(TrainData(pairs=(own, dialogue, *fresh))), [(benchmark, items[:1])])
    assert (kept.data.pairs, kept.out["pairs"]) == (fresh, 2)


def test_templates_are_found_behind_option_order() -> None:
    (benchmark, items), *_ = asked_of("option_order(of='bbq(source=demo)')")
    bbq = registry.build_benchmark("bbq(source=demo)").load()
    kept = without(load("bbq(source=demo)"), [(benchmark, items[:1])])
    assert kept.left_out == sum(i.cluster == items[0].cluster for i in bbq) > 1


def test_parts_are_halves_of_each_stratum() -> None:
    named = [("a", f"a{n}") for n in range(7)] + [("b", "b0"), ("c", "c0"), ("c", "c1")]
    fit, test = clusters_of("fit", named), clusters_of("test", named)
    assert clusters_of("all", named) == fit | test == {c for _, c in named}
    assert not fit & test
    assert [sum(c[0] == s for c in fit) for s in "abc"] == [4, 1, 1]
    assert clusters_of("fit", [n for n in named if n[0] == "a"]) == {c for c in fit if c[0] == "a"}
    assert clusters_of("test", []) == frozenset()


RED_ONE = Question("one", "Which?", ("red", "blue"), context="A sky.")
