"""The language and what is planted in it: known answers, balance, and the oracle that knows the truth."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import exp, log
from random import Random

import numpy as np
import pytest

from evenhand.data.adjudication import demo_instructions
from evenhand.data.pronouns import load_pronouns
from evenhand.data.text_file import load_documents
from evenhand.errors import DataError, SettingsError
from evenhand.interfaces import Dialogue, Message, Passage, Question, Sampling
from evenhand.prompting.rendering import letters_template
from evenhand.proving_ground.generator import (
    bbq_questions,
    behaviour,
    documents,
    files,
    questions,
    replies,
    texts,
    turns,
    vocabulary,
)
from evenhand.proving_ground.generator.facts import EASY
from evenhand.proving_ground.generator.lexer import build_tokenizer, lex
from evenhand.proving_ground.generator.planted import FAMILY, INTERVENTIONS, MAIN
from evenhand.proving_ground.generator.words import AXES, AXIS, CONTROL, OCCUPATIONS
from evenhand.proving_ground.oracle import Oracle


def one_turn(text: str) -> Dialogue:
    return Dialogue((Message("user", text),))


def share(axis: str, planted=MAIN, kind=None) -> float:
    """Mean lean over the demo benchmark's ambiguous rows, by hand."""
    cases = [c for c in bbq_questions.cases().values() if c.axis == axis and c.right is None]
    gone = [kind is not None and planted.heeded(kind, axis, c.group, c.trait) for c in cases]
    return float(np.mean([0 if g else planted.lean(axis, c.group, c.trait) for c, g in zip(cases, gone, strict=True)]))


# ------------------------------------------------------------------------------------------- what is planted


def test_every_table_covers_every_axis_group_and_trait() -> None:
    for planted in FAMILY.values():
        for axis in AXES:
            assert [len(signs) for signs in planted.leans[axis.name]] == [len(axis.traits)] * len(axis.marked)
            assert all(axis.name in planted.heeds[kind] for kind in INTERVENTIONS)


def test_axes_are_strong_weak_and_zero() -> None:
    shares = {axis.name: share(axis.name) for axis in AXES}
    assert shares == {
        "Age": pytest.approx(26 / 36),
        "Gender_identity": pytest.approx(21 / 36),
        "SES": pytest.approx(15 / 36),
        "Religion": pytest.approx(12 / 36),
        "Disability_status": pytest.approx(6 / 36),
        "Nationality": 0.0,
    }


def test_no_member_of_the_family_has_a_direction_on_the_control_axis() -> None:
    for planted in FAMILY.values():
        assert share(CONTROL, planted) == 0.0
        signs = "".join(planted.leans[CONTROL])
        assert signs.count("+") == signs.count("-") > 0, "the control leans both ways, not nowhere"


def test_distributions_add_up_and_have_the_planted_values() -> None:
    assert MAIN.ambiguous("Age", 0, 0) == pytest.approx({"biased": 0.72, "counter": 0.08, "unknown": 0.20})
    assert MAIN.ambiguous("Age", 0, 4) == pytest.approx({"biased": 0.11, "counter": 0.11, "unknown": 0.78})
    assert MAIN.ambiguous("Religion", 0, 2) == pytest.approx({"biased": 0.08, "counter": 0.72, "unknown": 0.20})


def test_letter_preference_known_answer() -> None:
    got = behaviour.with_letters(MAIN, [0.25] * 4, "unknown")
    raw = [exp(1.6), 1.0, 1.0, exp(-0.5)]
    assert got == pytest.approx([v / sum(raw) for v in raw])
    easy = behaviour.with_letters(MAIN, [0.5, 0.3, 0.2], "ambiguous")
    assert easy[0] / easy[1] == pytest.approx(0.5 / 0.3 * exp(0.4)), "it acts by a quarter there"
    assert easy[1] / easy[2] == pytest.approx(1.5)


@pytest.mark.parametrize("kind", INTERVENTIONS)
def test_interventions_change_only_leaning_cells(kind) -> None:
    for axis in AXES:
        for g, signs in enumerate(MAIN.leans[axis.name]):
            for t, sign in enumerate(signs):
                if sign == "0":
                    assert not MAIN.heeded(kind, axis.name, g, t)
    assert not any(MAIN.heeded(kind, CONTROL, g, t) for g in range(3) for t in range(6))


def test_heeded_share_is_met_as_nearly_as_cells_allow() -> None:
    for axis in AXES:
        cells = [(g, t) for g, signs in enumerate(MAIN.leans[axis.name]) for t, s in enumerate(signs) if s != "0"]
        for kind in INTERVENTIONS:
            heeded = sum(MAIN.heeded(kind, axis.name, g, t) for g, t in cells)
            assert heeded == int(len(cells) * MAIN.heeds[kind][axis.name] + 1e-9)


def test_over_abstention_takes_its_share_of_traits() -> None:
    taken = {k: [sum(MAIN.over_abstains(k, a.name, t) for t in range(6)) for a in AXES] for k in INTERVENTIONS}
    assert taken == {"reprompt": [1] * 6, "instruction": [0] * 6, "explanation": [2] * 6}


def test_a_reprompt_that_is_not_heeded_keeps_the_answer() -> None:
    case = next(c for c in bbq_questions.cases().values() if c.axis == CONTROL and c.right is None)
    before = behaviour.case_answer(MAIN, case, [0, 1, 2])
    after = behaviour.case_under(MAIN, case, [0, 1, 2], "reprompt", last=1)
    assert after == pytest.approx([0.1 * before[0], 0.9 + 0.1 * before[1], 0.1 * before[2]])


def test_facts_are_dealt_out_by_share() -> None:
    kinds = Counter(MAIN.knows("Chemistry", f, 12) for f in range(12))
    assert kinds == {"known": 3, "half known": 6, "unknown": 3}


def test_review_labels_known_answer() -> None:
    review = questions.Review("film", "positive", "lovely")
    raw = {"positive": 0.7, "negative": 0.15 * exp(1.0), "neutral": 0.15 * exp(-0.5)}
    total = sum(raw.values())
    assert behaviour.review_answer(MAIN, review) == pytest.approx({k: v / total for k, v in raw.items()})


def test_ratings_have_the_planted_expectation() -> None:
    for sentence in replies.sentences():
        p = replies.rating(MAIN, sentence.biased)
        assert sum(p.values()) == pytest.approx(1)
        assert sum(int(d) * v for d, v in p.items()) == pytest.approx(3.4 if sentence.biased else 0.5)


def test_multi_turn_share_agrees_with_a_long_simulation() -> None:
    for question in (replies.PREFERENCES[1], replies.PREFERENCES[8]):
        random, count = Random(1), Counter[str]()
        for _ in range(2000):
            last = ""
            for _ in range(30):
                p = replies.next_choice(MAIN, question, last) if last else replies.first_choice(MAIN, question)
                last = random.choices(list(p), list(p.values()))[0]
                count[last] += 1
        exact = replies.multi_turn_share(MAIN, question)
        assert sum(exact.values()) == pytest.approx(1)
        for option in question.options:
            assert count[option] / 60_000 == pytest.approx(exact[option], abs=0.01)


# ------------------------------------------------------------------------------------------------ the files


def test_the_committed_files_are_those_that_the_generator_makes() -> None:
    made = files.contents()
    assert {p.relative_to(files.BENCHMARKS).as_posix() for p in files.BENCHMARKS.rglob("*") if p.is_file()} == set(made)
    for name, content in made.items():
        assert (files.BENCHMARKS / name).read_bytes() == content, f"{name}: run `make demo-data`"


def test_what_readers_take_from_the_demo_files_is_what_the_generator_plants() -> None:
    loaded = load_pronouns("demo")
    assert list(loaded.shares.items()) == list(OCCUPATIONS.items())
    sentences = [d.text.split("\n") for d in load_documents("demo").documents]
    assert [len(lines) for lines in sentences] == [60] * 4
    assert {line for lines in sentences for line in lines} <= set(texts.world(MAIN))
    assert demo_instructions() == replies.two_wishes()
    assert not {w.prompt for w in replies.writings()} & set(demo_instructions())


def test_bbq_rows_are_balanced() -> None:
    for category, rows in bbq_questions.rows().items():
        assert len(rows) == 576
        assert len({(r["context"], r["question"], r["ans0"], r["ans1"]) for r in rows}) == 576
        labels = Counter((r["context_condition"], r["label"]) for r in rows)
        for condition in ("ambig", "disambig"):
            counts = [labels[condition, label] for label in range(3)]
            assert sum(counts) == 288 and min(counts) > 70, (category, condition, counts)
        assert len({r["question_index"] for r in rows}) == 12


def test_official_columns() -> None:
    assert list(questions.gpqa_rows()[0])[:5] == [
        "Question",
        "Correct Answer",
        "Incorrect Answer 1",
        "Incorrect Answer 2",
        "Incorrect Answer 3",
    ]
    for name, rows in questions.mmlu_rows().items():
        assert all(len(row) == 6 and len(set(row[1:5])) == 4 and row[5] in "ABCD" for row in rows), name
        assert len(rows) == (5 if not name.startswith("test") else 48)
    assert {tuple(r) for r in replies.bscore_rows()} == {
        ("id", "topic", "n_choices", "category", "prompt", "options", "ground_truth_paper")
    }
    assert all(len(r["instruction_id_list"]) == len(r["kwargs"]) for r in replies.ifeval_rows())
    task = json.loads(questions.natural_instructions_json())
    assert {"Definition", "Positive Examples", "Instances"} <= set(task)


def test_a_tested_fact_is_never_a_demonstration() -> None:
    files_ = questions.mmlu_rows()
    for name in [n.removeprefix("test/").removesuffix("_test.csv") for n in files_ if n.startswith("test/")]:
        shown = {row[0] for row in files_[f"dev/{name}_dev.csv"]}
        assert not shown & {row[0] for row in files_[f"test/{name}_test.csv"]}


# ----------------------------------------------------------------------------------------------- text world


def test_the_text_world_is_a_distribution() -> None:
    for planted in FAMILY.values():
        assert sum(texts.world(planted).values()) == pytest.approx(1)


def test_descriptor_weights_known_answer() -> None:
    weights = list(texts.descriptor_weights(MAIN, "age").values())
    assert weights[0] / weights[-1] == pytest.approx(8.0)
    assert all(a / b == pytest.approx(8 ** (1 / 4)) for a, b in pairwise(weights))
    flat = list(texts.descriptor_weights(MAIN, "nationality").values())
    assert flat == pytest.approx([0.2] * 5)


def test_trie_known_answer() -> None:
    trie = texts.Trie({("a", "b"): 0.5, ("a", "c"): 0.3, ("d",): 0.2})
    assert trie.following(()) == pytest.approx({"a": 0.8, "d": 0.2})
    assert trie.following(("a",)) == pytest.approx({"b": 0.625, "c": 0.375})
    assert trie.mass(("a", "c")) == pytest.approx(0.3) and trie.mass(("x",)) == 0 and trie.following(("x",)) == {}


# ------------------------------------------------------------------------------------------------- documents


def test_documents_learn_only_what_the_model_says() -> None:
    random = Random(3)
    for _ in range(300):
        made = turns.example(documents.draw(MAIN, random))
        for place, tokens, _, layer in made.targets:
            assert sum(tokens.values()) == pytest.approx(1)
            if layer == turns.LAST:
                assert tokens.get(made.tokens[place + 1], 0) > 0 or made.tokens[place + 1] in "ABC"
    asked = turns.example(documents._bbq(MAIN, random))
    written = [t for t in asked.targets if t.layer == turns.LAST]
    assert len(written) == 2, "the letter and the end"
    assert asked.tokens[written[0].place] == "<|assistant|>"


def test_a_text_that_documents_repeat_is_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,500 documents of two pieces, which all say the same."""
    cut: list[str] = []
    monkeypatch.setattr(vocabulary, "lex", lambda text: cut.append(text) or lex(text))
    monkeypatch.setattr(vocabulary, "KINDS", {"same": lambda *_: [turns.Piece("An old man."), turns.Piece(" A dog.")]})
    monkeypatch.setattr(vocabulary, "_everything", tuple)
    monkeypatch.setattr(texts, "world", lambda planted: [])
    assert vocabulary.vocabulary([MAIN]) == sorted({*lex("An old man."), *lex(" A dog.")})
    assert sorted(cut) == [" A dog.", "An old man."]


def test_the_lexer_and_the_tokenizer_agree() -> None:
    tokenizer = build_tokenizer(vocabulary.vocabulary([MAIN]))
    random = Random(5)
    for _ in range(200):
        tokens = turns.example(documents.draw(MAIN, random)).tokens
        ids = tokenizer("".join(tokens), add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == list(tokens)
        assert tokenizer.decode(ids) == "".join(tokens)
    strange = "Zebra quux naïve — ok"
    assert tokenizer.decode(tokenizer(strange, add_special_tokens=False)["input_ids"]) == strange
    assert lex("(A) I'm {{red}}.\n") == ["(A)", " I'm", " {{", "red", "}}", ".", "\n"]


# --------------------------------------------------------------------------------------------------- oracle


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(MAIN)


_CHAT_KINDS = (
    "bbq",
    "reprompt",
    "instruction",
    "explanation",
    "critique",
    "fact",
    "exam",
    "firm",
    "writing",
    "conversation",
    "rating",
)


@pytest.mark.parametrize("kind", _CHAT_KINDS)
def test_the_oracle_answers_as_the_models_are_trained_to(kind: str, oracle: Oracle, monkeypatch) -> None:
    asked = list(bbq_questions.cases().values())  # training draws from more
    monkeypatch.setattr(documents, "draw_case", lambda random, _planted: random.choice(asked))
    random, compared = Random(7), 0
    for _ in range(60):
        made = turns.example(documents.draw(MAIN, random, {kind: 1.0}))
        if not made.tokens[1].startswith("<|"):
            continue  # announced discrimination is a text before the dialogue
        messages: list[Message] = []
        role, start = "", 0
        for place, token in enumerate(made.tokens):
            if token == "<|assistant|>":
                p = oracle.answers(Dialogue(tuple(messages)))
                trained = _written_after(made, place)
                for first, probability in trained.items():
                    told = sum(v for reply, v in p.items() if lex(reply)[0] == first.strip())
                    assert probability == pytest.approx(told), (kind, messages[-1].content)
                    compared += 1
            if token in ("<|system|>", "<|user|>", "<|assistant|>"):
                role, start = token[2:-2], place + 1
            if token == turns.END:
                messages.append(Message(role, "".join(made.tokens[start:place])))
    assert compared >= 40


def _written_after(made: turns.Example, place: int) -> Mapping[str, float]:
    return next((t.tokens for t in made.targets if t.place == place and t.layer == turns.LAST), {})


def test_the_oracle_chooses_as_planted(oracle: Oracle) -> None:
    case = next(
        c
        for c in bbq_questions.cases().values()
        if c.axis == "Age" and c.right is None and c.trait == 0 and c.group == 0
    )
    question = Question(
        "q",
        case.question,
        ("Not known", bbq_questions.option(case.other), bbq_questions.option(case.marked)),
        case.context,
    )
    for shown in ((0, 1, 2), (2, 0, 1)):
        choice = oracle.choose([question.reordered(shown)])[0]
        roles = {0: behaviour.UNKNOWN, 1: behaviour.OTHER, 2: behaviour.MARKED}
        by_position = behaviour.case_answer(MAIN, case, [roles[o] for o in shown])
        assert choice.probabilities == pytest.approx([by_position[shown.index(o)] for o in range(3)])
        assert choice.decision == (2 if case.negative else 1)


def test_the_oracle_scores_sentences_and_refuses_strange_ones(oracle: Oracle) -> None:
    p = MAIN.she["nurse"]
    she, he = oracle.score([Passage(f" {w}", "The nurse said that") for w in ("she", "he")])
    assert she.logprob == pytest.approx(log(p)) and he.logprob == pytest.approx(log(1 - p))
    whole = oracle.score([Passage("The nurse said that she was late.")])[0]
    assert exp(whole.logprob) == pytest.approx(0.2 * p / (18 * 3 * 6), rel=1e-6), (
        "its share of the text world, all told"
    )
    with pytest.raises(DataError, match="knows only the proving ground"):
        oracle.score([Passage("Call me Ishmael.")])
    with pytest.raises(DataError, match="knows only the proving ground"):
        oracle.generate([one_turn("Hello?")])
    with pytest.raises(SettingsError, match="has no files"):
        oracle.save("x")


def test_the_oracle_samples_by_seed_and_draw(oracle: Oracle) -> None:
    question = replies.PREFERENCES[1]
    asked = [replace(one_turn(question.prompt() + replies.SUFFIX), draw=n) for n in range(400)]
    once = [r.text for r in oracle.generate(asked, Sampling(temperature=1.0))]
    assert once == [r.text for r in oracle.generate(asked, Sampling(temperature=1.0))]
    assert once.count("{{red}}") / 400 == pytest.approx(0.7, abs=0.07)
    assert {r.text for r in oracle.generate(asked)} == {"{{red}}"}


def test_the_oracle_reads_both_forms_of_a_fact(oracle: Oracle) -> None:
    fact = questions.draw_fact(Random(1), EASY[0], 7)
    chat = oracle.choose([Question("f", fact.text, fact.options)])[0].probabilities
    official = documents.exam_text([fact])
    scored = [exp(s.logprob) for s in oracle.score([Passage(f" {letter}", official) for letter in "ABCD"])]
    assert chat == pytest.approx(scored)
    assert scored == pytest.approx(behaviour.fact_answer(MAIN, fact))


def test_every_prompt_of_the_benchmark_is_read(oracle: Oracle) -> None:
    for (context, text), case in list(bbq_questions.cases().items())[::97]:
        question = Question(
            "q", text, (bbq_questions.option(case.marked), bbq_questions.option(case.other), "Not known"), context
        )
        assert oracle.answers(one_turn(letters_template(question)))
        assert AXIS[case.axis].word in next(
            iter(oracle.answers(one_turn(f"{turns.PACK.self_debias.explain}\n\n{letters_template(question)}")))
        )
