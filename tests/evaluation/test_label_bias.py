"""Label bias over tasks: prompts byte for byte, the division of examples, metrics by hand, broken files."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenhand.core.registry import build_method
from evenhand.data.super_natural_instructions import Example, Task, load, parts
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.label_bias import LabelBias, TaskAnswer, header
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Choice, Model, Passage, Question, Score
from evenhand.methods.calibration.content_free import random_words
from evenhand.models.loading import load as load_model
from evenhand.models.tiny import tiny_model
from evenhand.prompting.rendering import as_dialogue
from evenhand.proving_ground.generator.planted import FAMILY
from evenhand.proving_ground.oracle import Oracle
from evenhand.testing import ScriptedModel, check_benchmark

LABELS = ("bad", "good")


def raw(count: int, labels: tuple[str, ...] = LABELS, **more: Any) -> dict[str, Any]:
    return {
        "Definition": ["Say what it is"],
        "Categories": ["Sentiment Analysis"],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Positive Examples": [{"input": "text 0", "output": labels[0], "explanation": "x"}],
        "Instances": [{"id": f"i{i}", "input": f"text {i}", "output": [labels[i % len(labels)]]} for i in range(count)],
        **more,
    }


def write(folder: Path, **tasks: Any) -> str:
    for name, content in tasks.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def bench(source: str, **settings: Any) -> LabelBias:
    made: LabelBias = LabelBias.build(**{"source": source, "shots": 2, "contexts": 1, "held_out": 4, **settings})
    return made


# ------------------------------------------------------------------------------------------------ the prompt


def test_outputs_are_stripped_and_inputs_without_content_end_in_a_full_stop(tmp_path: Path) -> None:
    """As schwartz-lab-NLP/label-bias does (b72b504, src/superni/utils/ni_collator.py), character by character."""
    made = raw(60)
    for n, instance in enumerate(made["Instances"]):
        instance["output"] = [f" {instance['output'][0]}" + " " * (n % 3)]
    found = bench(write(tmp_path, task1_x=made), preset="paper", shots=2, held_out=4)
    (item,) = found.load()
    assert item.labels == LABELS, "blanks make no labels of their own"
    question = item.tested[0]
    first, second = (f"Input: {s.question.question}.\n Output: {LABELS[s.answer]}.\n\n" for s in question.shots)
    seen: list[Question] = []

    class Listening(ScriptedModel):
        def choose(self, questions: Sequence[Question]) -> list[Choice]:
            seen.extend(questions)
            return [Choice(0, (0.5, 0.5)) for _ in questions]

    build_method("contextual_calibration").apply(Listening(lambda dialogue: "")).choose([question])
    texts = [as_dialogue(q, "text_with_end").messages[-1].content for q in seen]
    shown = f"Say what it is.\n\n{first}{second}Input: "
    assert texts == [f"{shown}{text}\n\nOutput:" for text in (f"{question.question}.", "N/A.", ".", "[MASK]")]


TASK = Task("task1_x", "", " Is it good", LABELS, (), ())


def test_the_paper_form_byte_for_byte() -> None:
    text = header(TASK, [Example(" Fine, it was! ", 1), Example("Oh well", 0)])
    assert text == "Is it good.\n\nInput: Fine, it was!\n Output: good.\n\nInput: Oh well.\n Output: bad.\n\n"
    assert header(TASK, []) == "Is it good.\n\n"


def test_the_plain_form_byte_for_byte() -> None:
    text = header(TASK, [Example("Oh well", 0)], "plain")
    assert text == "Definition:  Is it good\nInput: Oh well\nOutput: bad\n\n"


def test_the_whole_question(tmp_path: Path) -> None:
    item = bench(write(tmp_path, task1_a=raw(20)), shots=1).load()[0]
    question = item.tested[0]
    text = as_dialogue(question, "text_per_token").messages[0].content
    shown, asked = text.split("\n\n", 2)[1], text.split("\n\n", 2)[2]
    assert text.startswith("Say what it is.\n\nInput: text ") and "\n Output: " in shown
    assert asked.startswith("Input: text ") and asked.endswith(".\n\nOutput:")
    assert question.options == LABELS and question.answer_by == "text_per_token"
    assert bench(str(tmp_path), probability="sum").load()[0].tested[0].answer_by == "text"


@pytest.mark.parametrize("prompt", ["paper", "plain"])
def test_demonstrations_are_kept_apart_and_the_whole_text_is_still_the_authors(tmp_path: Path, prompt: str) -> None:
    b = bench(write(tmp_path, task1_a=raw(30)), shots=3, contexts=2, prompt=prompt)
    task = load(str(tmp_path), needed=10).tasks[0]
    divided = parts(task, contexts=2, shots=3, held_out=4, tested=100, seed=0)
    for item, shown in zip(b.load(), divided.contexts, strict=True):
        examples = [*divided.tested, *divided.held_out]
        for question, example in zip((*item.tested, *item.held_out), examples, strict=True):
            if prompt == "paper":
                text = "Say what it is.\n\n"
                text += "".join(f"Input: {e.input}.\n Output: {LABELS[e.label]}.\n\n" for e in shown)
                text += f"Input: {example.input}.\n\nOutput:"
            else:
                text = "Definition: Say what it is\n"
                text += "".join(f"Input: {e.input}\nOutput: {LABELS[e.label]}\n\n" for e in shown)
                text += f"Input: {example.input}\nOutput:"
            assert as_dialogue(question, "text").messages[0].content == text
            assert [s.answer for s in question.shots] == [e.label for e in shown]
            assert [as_dialogue(s.question, "text").messages[0].content for s in question.shots] == [
                f"Input: {e.input}{'.' if prompt == 'paper' else ''}\n{chr(10) * (prompt == 'paper')}Output:"
                for e in shown
            ]
            assert all(s.question.options == LABELS and s.question.header == "" for s in question.shots)


# --------------------------------------------------------------------------------------------- the division


def test_parts_do_not_overlap_and_are_stable() -> None:
    examples = tuple(Example(f"t{i}", i % 3) for i in range(30))
    task = Task("task1", "", "d", ("a", "b", "c"), (), examples)
    got = parts(task, contexts=2, shots=3, held_out=5, tested=100, seed=0)
    assert [len(c) for c in got.contexts] == [3, 3] and len(got.held_out) == 5 and len(got.tested) == 19
    every = [e.input for part in (*got.contexts, got.held_out, got.tested) for e in part]
    assert sorted(every) == sorted(e.input for e in examples), "each once"
    assert parts(task, contexts=2, shots=3, held_out=5, tested=100, seed=0) == got
    turned = Task("task1", "", "d", ("a", "b", "c"), (), examples[::-1])
    assert parts(turned, contexts=2, shots=3, held_out=5, tested=100, seed=0) == got
    assert parts(task, contexts=2, shots=3, held_out=5, tested=100, seed=1) != got
    assert len(parts(task, contexts=2, shots=3, held_out=5, tested=4, seed=0).tested) == 4


def test_prepared_files_keep_the_authors_division(tmp_path: Path) -> None:
    pool = [{"id": f"p{i}", "input": f"pool {i}", "output": LABELS[i % 2]} for i in range(12)]
    pool[7]["input"] = "text 2"  # in both lists: it is not tested
    source = write(tmp_path, task1_a=raw(9, **{"Positive Examples": pool}))
    task = load(source, needed=8).tasks[0]
    got = parts(task, contexts=2, shots=2, held_out=4, tested=5, seed=0)
    assert [[e.input for e in c] for c in got.contexts] == [["pool 0", "pool 1"], ["pool 2", "pool 3"]]
    assert [e.input for e in got.held_out] == [f"pool {i}" for i in range(8, 12)]
    assert [e.input for e in got.tested] == ["text 0", "text 1", "text 3", "text 4", "text 5"]


def test_contexts_are_items_of_one_cluster(tmp_path: Path) -> None:
    items = bench(write(tmp_path, task1_a=raw(20), task2_b=raw(30)), contexts=3).load()
    assert [i.id for i in items] == [f"{t}/{n}" for t in ("task1_a", "task2_b") for n in range(3)]
    assert [i.cluster for i in items] == ["task1_a"] * 3 + ["task2_b"] * 3
    assert items[0].tested[0].preamble != items[1].tested[0].preamble
    assert items[0].tested[0].question == items[1].tested[0].question


# ----------------------------------------------------------------------------------------------- the numbers


def answer(golds: tuple[int, ...], held: tuple[int, ...], pick: Any, mass: Any) -> TaskAnswer:
    return TaskAnswer(
        tuple(Choice(pick(g)) if pick(g) is not None else Choice(None, status="unparsed") for g in golds),
        tuple(Choice(0, mass(g)) for g in held),
    )


def test_means_over_tasks_by_hand(tmp_path: Path) -> None:
    more = raw(40, labels=("a", "b", "c", "d"), Categories=["Entailment"])
    b = bench(write(tmp_path, task1_a=raw(20), task2_b=more, task3_c=raw(22)), held_out=8, instances=12)
    items = b.load()
    golds = [i.gold for i in items]
    answers = [
        answer(golds[0], items[0].held_out_gold, lambda g: g, lambda g: tuple(np.eye(2)[g])),  # perfect
        answer(golds[1], items[1].held_out_gold, lambda g: 0, lambda g: (1.0, 0.0, 0.0, 0.0)),  # always the first
        answer(golds[2], items[2].held_out_gold, lambda g: 1 - g, lambda g: (0.5, 0.5)),  # all wrong, undecided
    ]
    tally = b.tally(items, answers)
    assert tally.groups == ("overall", "Entailment", "Sentiment Analysis")
    got = {g: {n: float(m.value[k]) for n, m in b.compute(tally.total).items()} for k, g in enumerate(tally.groups)}
    share = golds[1].count(0) / len(golds[1])
    recalls = [1.0] + [0.0] * (len(set(golds[1])) - 1)
    assert got["Entailment"]["rsd"] == pytest.approx(np.std(recalls) / share)
    assert got["overall"]["rsd"] == pytest.approx((0 + np.std(recalls) / share) / 2), "the all-wrong task has none"
    assert got["overall"]["rsd_undefined"] == pytest.approx(1 / 3)
    assert got["overall"]["accuracy"] == pytest.approx((1 + share + 0) / 3)
    one_gap = 1 - len(set(items[0].held_out_gold)) / 2
    assert got["overall"]["bias_score"] == pytest.approx((one_gap + 3 / 4 + 0) / 3)
    assert got["Sentiment Analysis"]["macro_f1"] == pytest.approx(0.5)
    twice = b.compute(2 * tally.total)
    assert twice["rsd"].n[0] == 4 and float(twice["rsd"].value[0]) == pytest.approx(got["overall"]["rsd"])


def test_unparsed_is_wrong_and_decisions_alone_have_no_bias_score(tmp_path: Path) -> None:
    b = bench(write(tmp_path, task1_a=raw(20), task2_b=raw(20)))
    items = b.load()
    answers = b.ask(ScriptedModel(decide=lambda q: None if q.id.startswith("label_bias task1") else 1), items)
    got = b.compute(b.tally(items, answers).total)
    assert float(got["unparsed"].value[0]) == 0.5
    assert math.isnan(float(got["bias_score"].value[0])) and got["bias_score"].n[0] == 0
    assert answers[0].status == "answered" and answers[0].usage.calls == len(items[0].tested) + 4


def test_missing_labels_in_the_held_out_items_are_told(tmp_path: Path) -> None:
    source = write(tmp_path, task1_a=raw(60, labels=tuple("abcdefgh")))
    b = bench(source, held_out=3)
    assert "task1_a" in b.facts()["notes"][0]
    items = b.load()
    perfect = [answer(i.gold, i.held_out_gold, lambda g: g, lambda g: tuple(np.eye(8)[g])) for i in items]
    got = b.compute(b.tally(items, perfect).total)
    present = len(set(items[0].held_out_gold))
    assert float(got["bias_score"].value[0]) == pytest.approx(1 - present / 8)
    assert float(got["label_gaps"].value[0]) == pytest.approx(1 - present / 8)


# ------------------------------------------------------------------------------------------------ the asking


class Scorer(ScriptedModel):
    """The score of a label is by its first letter; a label has as many tokens as letters."""

    def __init__(self) -> None:
        super().__init__(abilities=frozenset({"score"}))
        self.passages: list[list[Passage]] = []

    def score(self, passages: Any) -> list[Score]:
        self.passages.append(list(passages))
        return [Score({"b": -3.0, "g": -3.6}[p.continuation.strip()[0]], len(p.continuation.strip())) for p in passages]


def test_mean_and_sum_over_tokens(tmp_path: Path) -> None:
    source = write(tmp_path, task1_a=raw(20), task2_b=raw(20))
    for probability, logits in (("mean", (-3.0 / 3, -3.6 / 4)), ("sum", (-3.0, -3.6))):
        b, model = bench(source, reading="score", probability=probability), Scorer()
        answers = b.ask(model, b.load())
        assert len(model.passages) == 1, "one call for all tasks"
        assert [p.continuation for p in model.passages[0][:2]] == [" bad", " good"]
        expected = np.exp(logits) / np.exp(logits).sum()
        assert answers[1].held_out[0].probabilities == pytest.approx(tuple(expected))
        assert answers[0].tested[0].decision == int(np.argmax(logits))


def test_the_end_token_is_written_after_each_label(tmp_path: Path) -> None:
    source = write(tmp_path, task1_a=raw(12))
    model = tiny_model(texts=["good bad text Say what it is Input Output : ."], chat=False)
    with_end, without = (bench(source, reading="score", eos=e, probability="sum") for e in (True, False))
    assert with_end.needs == {"score", "weights"} and without.needs == {"score"}
    question = with_end.load()[0].tested[0]
    text = as_dialogue(question, "text").messages[0].content
    scores = model.score([Passage(f" {label}</s>", text) for label in LABELS])
    assert [s.tokens for s in scores] == [2, 2], "the label and the end"
    values = np.exp([s.logprob for s in scores])
    ended = with_end.ask(model, with_end.load())[0].tested[0].probabilities
    assert ended == pytest.approx(tuple(values / values.sum()), abs=1e-6)
    assert ended != pytest.approx(without.ask(model, without.load())[0].tested[0].probabilities, abs=1e-4)


def test_both_readings_agree_without_a_chat_template(tmp_path: Path) -> None:
    source = write(tmp_path, task1_a=raw(12))
    model = tiny_model(texts=["good bad text Say what it is Input Output : ."], chat=False)
    chosen, scored = (bench(source, reading=r) for r in ("choose", "score"))
    for a, b in zip(
        chosen.ask(model, chosen.load())[0].tested, scored.ask(model, scored.load())[0].tested, strict=True
    ):
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)


# --------------------------------------------------------------------------- the paper's reading, and calibration


@pytest.mark.parametrize("chat", [False, True])
def test_the_papers_reading_is_a_way_to_choose(tmp_path: Path, chat: bool) -> None:
    """Also with a chat template: the authors' code continues the bare text whatever the model is."""
    model = tiny_model(texts=["good bad text Say what it is Input Output : ."], chat=chat)
    assert_readings_agree(model, write(tmp_path, task1_a=raw(20)), shots=2, held_out=4)


def test_a_demo_and_a_real_model_read_labels_alike_both_ways(real_model: Path) -> None:
    assert_readings_agree(load_model("demo"), "demo", instances=10)
    assert_readings_agree(load_model(real_model, too_long="skip"), "demo", instances=4, shots=2)


def assert_readings_agree(model: Model, source: str, **settings: Any) -> None:
    chosen, scored = (
        LabelBias.build(source=source, preset="paper", reading=reading, **settings) for reading in ("choose", "score")
    )
    assert chosen.needs == {"choose"} and LabelBias.build(source=source, preset="paper").reading == "choose"
    for one, other in zip(chosen.ask(model, chosen.load()), scored.ask(model, scored.load()), strict=True):
        for a, b in zip((*one.tested, *one.held_out), (*other.tested, *other.held_out), strict=True):
            assert a.probabilities == pytest.approx(b.probabilities, abs=1e-6) and a.decision == b.decision


UNEVEN = ("bad", "good enough", "not good at all")
WORDS = ("it", "was", "a", "little", "dog", "cat", "letter", "question", "answer", "single", "there", "time", "once")


def uneven_task() -> dict[str, Any]:
    """A prepared file: 6 demonstrations, then 7 held-out examples; 20 instances. Classes have unequal sizes."""
    rng = random.Random(3)

    def examples(labels: list[int]) -> list[tuple[str, str]]:
        return [(" ".join(rng.sample(WORDS, 4)) + "?" * (i % 2), UNEVEN[y]) for i, y in enumerate(labels)]

    pool = examples([0, 1, 0, 2, 0, 1, 2, 0, 0, 1, 0, 2, 1])
    tested = examples([0] * 9 + [1] * 7 + [2] * 4)
    return raw(
        0,
        **{
            "Positive Examples": [{"input": text, "output": label} for text, label in pool],
            "Instances": [{"input": text, "output": [label]} for text, label in tested],
        },
    )


class ByHand:
    """The authors' computation for the task above: `Model.score` and numpy, no part of the benchmark's own path."""

    def __init__(self, model: Model) -> None:
        self.model, self.known, task = model, dict[tuple[str, int | None], np.ndarray](), uneven_task()
        self.shown = [(e["input"], e["output"]) for e in task["Positive Examples"][:6]]
        self.held_out = [(e["input"], e["output"]) for e in task["Positive Examples"][6:]]
        self.tested = [(e["input"], e["output"][0]) for e in task["Instances"]]

    def p(self, text: str, left_out: int | None = None) -> np.ndarray:
        """exp(mean log-likelihood of " label</s>"), normalised over the labels."""
        if (text, left_out) in self.known:
            return self.known[text, left_out]
        shown = [s for i, s in enumerate(self.shown) if i != left_out]
        prompt = "Say what it is.\n\n"
        prompt += "".join(f"Input: {self.stop(x)}\n Output: {y}.\n\n" for x, y in shown)
        prompt += f"Input: {self.stop(text)}\n\nOutput:"
        scores = self.model.score([Passage(f" {label}</s>", prompt) for label in UNEVEN])
        assert [s.tokens for s in scores] == [2, 3, 5]
        values = np.exp([s.logprob / s.tokens for s in scores])
        return self.known.setdefault((text, left_out), values / values.sum())

    @staticmethod
    def stop(text: str) -> str:
        return text if text.endswith(("?", "]")) else f"{text}."

    def prior(self, name: str) -> np.ndarray:
        if name == "looc":
            rows = [(self.p(x, i), y) for i, (x, y) in enumerate(self.shown)]
            return np.mean([np.mean([p for p, of in rows if of == label], axis=0) for label in UNEVEN], axis=0)
        asked = [x for x, _ in (*self.tested, *self.held_out)]
        if name == "batch_calibration":
            return np.mean([self.p(x) for x in asked], axis=0)
        texts: Sequence[str] = ("N/A", "", "[MASK]")
        if name == "domain_calibration":
            texts = [f.content for f in random_words([Question("", x, ()) for x in asked])]
            assert len(texts) == 20 and all(len(t.split()) == 4 for t in texts)
        return np.mean([self.p(t) for t in texts], axis=0)

    def metrics(self, prior: np.ndarray) -> dict[str, float]:
        """RSD, BiasScore and macro-F1 after dividing by a prior."""
        picked = [UNEVEN[int(np.argmax(self.p(x) / prior))] for x, _ in self.tested]
        right = [g for _, g in self.tested]
        recall, f1 = [], []
        for label in UNEVEN:
            hits = sum(a == g == label for a, g in zip(picked, right, strict=True))
            recall.append(hits / right.count(label))
            f1.append(2 * hits / (right.count(label) + picked.count(label)))
        accuracy = np.mean([a == g for a, g in zip(picked, right, strict=True)])
        rows = [(self.p(x) / prior / (self.p(x) / prior).sum(), y) for x, y in self.held_out]
        mean = np.mean([np.mean([p for p, of in rows if of == label], axis=0) for label in UNEVEN], axis=0)
        bias = 0.5 * np.abs(mean - 1 / 3).sum()
        return {"rsd": float(np.std(recall) / accuracy), "bias_score": float(bias), "macro_f1": float(np.mean(f1))}


@pytest.mark.parametrize("name", ["looc", "contextual_calibration", "domain_calibration", "batch_calibration"])
def test_calibrated_metrics_of_the_papers_reading_by_hand(tmp_path: Path, name: str) -> None:
    model = tiny_model(texts=[" ".join(WORDS), " ".join(UNEVEN), "Say what it is Input Output N A MASK : . ?"], seed=5)
    b = bench(write(tmp_path, task1_a=uneven_task()), preset="paper", shots=6, held_out=7)
    (item,) = b.load()
    assert (item.labels, len(item.tested), len(item.held_out)) == (UNEVEN, 20, 7)
    by_hand, (plain,) = ByHand(model), b.ask(model, b.load())
    (mitigated,) = b.ask(build_method(name).apply(model), b.load())
    prior = by_hand.prior(name)
    for (text, _), before, after in zip(by_hand.tested, plain.tested, mitigated.tested, strict=True):
        p = by_hand.p(text)
        assert before.probabilities == pytest.approx(p, abs=1e-6)
        assert after.probabilities == pytest.approx(p / prior / (p / prior).sum(), abs=1e-5) and after.note == ""
    before, after = (
        {n: float(m.value[0]) for n, m in b.compute(b.tally([item], [a]).total).items()} for a in (plain, mitigated)
    )
    for found, wanted in ((before, by_hand.metrics(np.ones(3))), (after, by_hand.metrics(prior))):
        assert {n: found[n] for n in wanted} == pytest.approx(wanted, abs=1e-5)
    assert [c.decision for c in plain.tested] != [c.decision for c in mitigated.tested]
    assert after["bias_score"] < before["bias_score"] - 0.01 and after["rsd"] != before["rsd"]


def test_every_calibrator_acts_on_the_papers_preset() -> None:
    names = ["looc", "contextual_calibration", "domain_calibration", "batch_calibration", "prior_matching"]
    report = compare("demo", names, "label_bias(preset=paper,source=demo)", show_progress=False, replicates=200)
    found = {(r.method, r.metric): r for r in report.records if r.group == "overall"}
    base = found["none", "rsd"].value
    assert base > 1, "behind eight demonstrations the demo model nearly always gives one label"
    for name in names:
        assert found[name, "rsd"].status == "ok", "not: no effect"
        assert found[name, "rsd"].value < base / 4
        assert found[name, "bias_score"].value < found["none", "bias_score"].value / 4
        assert found[name, "macro_f1"].value > found["none", "macro_f1"].value + 0.5


def test_the_planted_model_has_the_papers_reading_too() -> None:
    """The oracle: a label is one token and the end is certain, so p(label) ~ sqrt(planted)."""
    plain = {"source": "demo", "prompt": "plain", "shots": 0, "contexts": 1}
    with_end, without = (LabelBias.build(eos=eos, **plain) for eos in (True, False))
    oracle = Oracle(FAMILY["demo"])
    ended, free = (b.ask(oracle, b.load())[0].tested for b in (with_end, without))
    scored = LabelBias.build(reading="score", **plain)
    for one, other, third in zip(ended, free, scored.ask(oracle, scored.load())[0].tested, strict=True):
        assert other.probabilities == pytest.approx(third.probabilities)
        roots = np.sqrt(other.probabilities or ())
        assert one.probabilities == pytest.approx(roots / roots.sum())
    trained = with_end.ask(load_model("demo"), with_end.load())[0].tested
    for one, demo in zip(ended, trained, strict=True):
        assert one.probabilities == pytest.approx(demo.probabilities, abs=0.05), "but for training"


def test_keeps_the_contract(tmp_path: Path) -> None:
    check_benchmark(LabelBias.build(source="demo", instances=5, held_out=4, shots=1))
    for reading in ("choose", "score"):
        tasks = write(tmp_path, task1_a=raw(12), task2_b=raw(14))
        check_benchmark(bench(tasks, preset="paper", reading=reading, shots=1, held_out=3))


def test_a_planted_model_answers_the_demo() -> None:
    b = LabelBias.build(source="demo", prompt="plain", shots=0, contexts=1, reading="score")
    answers = b.ask(Oracle(FAMILY["demo-c"]), b.load())
    got = b.compute(b.tally(b.load(), answers).total)
    assert float(got["accuracy"].value[0]) > 0.5 and not math.isnan(float(got["bias_score"].value[0]))


def test_a_real_model_answers(real_model: Path) -> None:
    b = LabelBias.build(source="demo", shots=1, contexts=1, held_out=3, instances=4)
    answers = b.ask(load_model(real_model, too_long="skip"), b.load())
    assert all(sum(c.probabilities or ()) == pytest.approx(1) for c in (*answers[0].tested, *answers[0].held_out))


# ------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", r"task9_x\.json:1: not JSON"),
        ("{\n", r"task9_x\.json:2: not JSON"),
        ("[]", "a JSON object was expected, not list"),
        (raw(30, Definition=[]), "'Definition' is missing"),
        (raw(30, Instances={}), "'Instances' is missing or not a list"),
        (raw(30, Input_language=["Hindi"]), "Input_language is 'Hindi'"),
        (raw(5), "5 usable instances; 8 are needed"),
        (raw(30, labels=("same",)), "not a classification task: 1 labels"),
        (raw(60, labels=tuple(f"l{i}" for i in range(50))), "not a classification task: 50 labels"),
        (
            raw(1, Instances=[{"input": f"t{i}", "output": ["a", "b"]} for i in range(30)]),
            "not a classification task: 1 labels, 2.0 outputs",
        ),
    ],
)
def test_an_unusable_task_is_named_and_costs_nothing_else(tmp_path: Path, content: Any, reason: str) -> None:
    b = bench(write(tmp_path, task1_a=raw(20), task9_x=content))
    assert [i.cluster for i in b.load()] == ["task1_a"]
    (problem,) = b.facts()["dropped"]
    assert str(tmp_path / "task9_x.json") in problem
    with pytest.raises(DataError, match=reason):
        load(str(tmp_path / "task9_x.json"), needed=6)


def test_unusable_instances_are_named(tmp_path: Path) -> None:
    content = raw(20)
    content["Instances"][3] = {"input": "text 3"}
    content["Instances"][4] = None
    content["Instances"][5]["input"] = "text 1"
    (tmp_path / "latin.json").write_bytes(b"\xff")
    loaded = load(write(tmp_path, task1_a=content), needed=6)
    file = tmp_path / "task1_a.json"
    assert len(loaded.tasks[0].instances) == 17
    assert loaded.facts["dropped"] == [
        f"{file}:0: Instances[3]: field 'output' is null, not a text",
        f"{file}:0: Instances[4]: field 'input' is null, not a text",
        f"{file}:0: Instances: 1 inputs that occur before",
    ]
    with pytest.raises(DataError, match=r"latin\.json:1: not UTF-8"):
        load(str(tmp_path / "latin.json"))


def test_tasks_are_picked_by_number_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "tasks"
    inside.mkdir()
    write(inside, task1_a=raw(20), task19_b=raw(20), task2_c=raw(20))
    assert [t.name for t in load(str(tmp_path), ("task1", "task2_c")).tasks] == ["task1_a", "task2_c"]
    with pytest.raises(SettingsError, match="no task 'task3'"):
        load(str(tmp_path), ("task3",))
    with pytest.raises(DataError, match="no usable classification task"):
        load(str(tmp_path / "tasks" / ".."), ("task1",), needed=100)
    monkeypatch.delenv("EVENHAND_DATA", raising=False)
    with pytest.raises(DataError, match="natural-instructions"):
        load("auto")


def test_settings_that_make_no_sense() -> None:
    for settings, reason in (
        ({"shots": -1}, "shots=-1"),
        ({"instances": 0}, "instances=0"),
        ({"contexts": 0}, "contexts=0"),
        ({"shots": 0}, "set contexts=1"),
        ({"eos": True, "probability": "sum"}, "probability=mean, or reading=score"),
    ):
        with pytest.raises(SettingsError, match=reason):
            LabelBias.build(source="demo", **settings)


def test_a_tokenizer_without_end_token_is_told(tmp_path: Path) -> None:
    model = tiny_model(chat=False)
    model.weights.tokenizer.eos_token = None
    for reading in ("score", "choose"):
        b = bench(write(tmp_path, task1_a=raw(12)), reading=reading, eos=True)
        with pytest.raises(SettingsError, match=r"tiny-llama.*set eos=False"):
            b.ask(model, b.load())
