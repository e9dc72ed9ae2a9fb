"""Predictions give the numbers that `compare` gives for the same answers, to the digit, for every benchmark."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import evenhand
from evenhand.core import registry
from evenhand.core.draws import seeded_hash
from evenhand.core.records import Record
from evenhand.core.run_folder import RunFolder
from evenhand.errors import SettingsError
from evenhand.evaluation.holistic_bias import CellScores
from evenhand.evaluation.label_bias import TaskAnswer
from evenhand.evaluation.metrics.sentence_scores import Scored
from evenhand.evaluation.option_order import OrderAnswer
from evenhand.evaluation.perplexity import WindowScore
from evenhand.evaluation.pronoun_skew import PronounScores
from evenhand.evaluation.redditbias import TwinScores
from evenhand.evaluation.unqover import PairAnswer
from evenhand.experiment.subsampling import subsample
from evenhand.interfaces import Benchmark, Choice, Method, Model, Passage, Question, Reply, Score, TrainData, settings
from evenhand.metrics import Scores
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.tiny import tiny_tokenizer
from evenhand.testing.scripted import ScriptedModel

SETTINGS = {
    "b_score": "source=demo,n_single=3,n_turns=3,runs=2,max_new_tokens=8",
    "ifeval": "source=demo,max_new_tokens=8",
    "holistic_bias": "source=demo,descriptors=3,nouns=6",
    "label_bias": "source=demo,shots=2,instances=12,held_out=4,contexts=2",
    "option_order": "source=demo,orders=cyclic",
    "winoqueer": "source=demo,scoring=shared_words",  # tokens take a model's tokenizer
    "honest": "source=demo,k=5",
}
LIMIT = {"b_score": 3}


def _luck(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(seeded_hash(0, text)[:4], "big") / 2**32


@settings
class Disturbed(Method):
    """Answers that differ from the model's now and then, whatever is asked; some are missing."""

    name: ClassVar[str] = "disturbed"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Disturb all verbs."""

        def choose(questions: Sequence[Question]) -> list[Choice]:
            return [_other(q, c) for q, c in zip(questions, model.choose(questions), strict=True)]

        def generate(dialogues: Any, sampling: Any) -> list[Reply]:
            replies = model.generate(dialogues, sampling)
            return [_rewritten(d.messages[-1].content, r) for d, r in zip(dialogues, replies, strict=True)]

        def score(passages: Sequence[Passage]) -> list[Score]:
            found = model.score(passages)
            return [_shifted(p, s) for p, s in zip(passages, found, strict=True)]

        return Mitigated(model, self, choose=choose, generate=generate, score=score)


def _other(question: Question, choice: Choice) -> Choice:
    luck = _luck(question.id)
    if luck < 0.15:
        return Choice(None, status="unanswered", note="lost")
    if luck < 0.5 and choice.probabilities:
        turned = (*choice.probabilities[1:], choice.probabilities[0])
        return replace(choice, probabilities=turned, decision=max(range(len(turned)), key=turned.__getitem__))
    return choice


def _rewritten(prompt: str, reply: Reply, luck_of: str = "") -> Reply:
    """One of the options that a prompt lists, or a digit; now and then the reply as it is, or none."""
    luck = _luck(luck_of + prompt)
    listed = re.search(r"\[(.*?)\]", prompt)
    options = listed[1].split(", ") if listed else list("0123456789")
    if luck < 0.1:
        return Reply(None, note="lost")
    return reply if luck > 0.9 else replace(reply, text=options[int(luck * 1e6) % len(options)], finished=True)


def _shifted(passage: Passage, score: Score) -> Score:
    luck = _luck(str(passage))
    return Score(math.nan, 0, "lost") if luck < 0.03 else score._replace(logprob=score.logprob * (1 + luck))


class Asked:
    """One comparison with its answers."""

    def __init__(self, name: str, model: Model, method: Method | str, folder: Path) -> None:
        more = SETTINGS.get(name, "source=demo")
        self.benchmark: Benchmark = registry.build_benchmark(f"{name}({more})")
        self.limit = LIMIT.get(name, 30)
        self.report = evenhand.compare(
            model, ["none", method], self.benchmark, out=folder, limit=self.limit, replicates=200, show_progress=False
        )
        self.items = list(subsample(self.benchmark.load(), self.limit, 0, self.benchmark.stratum))
        self.ids = [item.id for item in self.items]
        self.folder = RunFolder(folder)

    def answers(self, row: str) -> list[Any]:
        """As they lie in the run folder."""
        names = [u["answers"] for u in self.report.manifest["usage"] if u["method"] == row]
        assert len(names) == 1, [r.note for r in self.report.records][:3]
        return self.folder.read_answers(names[0], self.ids, self.benchmark.answer_type) or []

    def records(self, row: str) -> dict[tuple[str, str], dict[str, Any]]:
        """All numbers of a row but its costs, which are no predictions'."""
        return _plain([r for r in self.report.records if r.method == row and r.kind != "cost"])

    def measured(self, predictions: Any, **more: Any) -> Scores:
        """What the functions for predictions make of the same items."""
        return evenhand.metrics.measure(self.benchmark, self.items, predictions, replicates=200, **more)


def _values(scores: Scores) -> dict[tuple[str, str], str]:
    """Values by metric and group; what only probabilities of letters tell is left out, as simple forms have none."""
    return {(r.metric, r.group): repr(r.value) for r in scores.records if "mass" not in r.metric}


def _plain(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, Any]]:
    """Numbers by metric and group, without names; nan as text, so that it equals itself."""
    left_out = {"model", "method", "baseline"}
    return {(r.metric, r.group): {k: repr(v) for k, v in asdict(r).items() if k not in left_out} for r in records}


def _simple(answer: Any) -> Any:
    """An answer in the simplest form that holds all that its numbers depend on."""
    if isinstance(answer, Choice):
        return answer if answer.status == "unparsed" else answer.probabilities  # None is no answer
    if isinstance(answer, Reply):
        return answer.text if answer.finished else answer
    if isinstance(answer, Scored | CellScores):
        return list(zip(answer.logprobs, answer.tokens, strict=True))
    if isinstance(answer, TwinScores):
        return _simple(answer.scored)
    if isinstance(answer, WindowScore):
        return answer.logprob, answer.tokens
    if isinstance(answer, PronounScores):
        return [logprob for pair in zip(answer.he, answer.she, strict=True) for logprob in pair]
    if isinstance(answer, TaskAnswer):
        return [_simple(c) for c in (*answer.tested, *answer.held_out)]
    assert isinstance(answer, OrderAnswer | PairAnswer)
    return [_simple(c) for c in answer.choices]


NAMES = tuple(n for n in registry.BUILT_IN["benchmarks"] if n not in ("disco", "seat"))


@pytest.mark.parametrize("name", NAMES)
def test_values_intervals_and_differences_are_those_of_compare(name: str, tiny: LocalModel, tmp_path: Path) -> None:
    decided = ScriptedModel(lambda dialogue: _rewritten(dialogue.messages[-1].content, Reply("7"), "other").text)
    asked = Asked(name, decided if name == "b_score" else tiny, Disturbed(), tmp_path)
    before, after = asked.answers("none"), asked.answers("disturbed")
    assert before != after
    scores = asked.measured(before)
    assert _plain(scores.records) == asked.records("none")
    assert _plain(asked.measured(after).records).keys() <= asked.records("disturbed").keys()
    compared = scores.compare(after, margin=asked.report.criteria.margin)
    assert _plain([r for r in compared.records if r.method == "none"]) == asked.records("none")
    found = _plain([r for r in compared.records if r.method == "other"])
    assert found == asked.records("disturbed")
    assert any(record["difference"] not in ("nan", "0.0") for record in found.values())
    if asked.benchmark.answer_type not in (Choice, Reply):
        assert _plain(asked.measured([asdict(a) for a in before]).records) == asked.records("none")
    if name not in ("b_score", "honest"):  # what they ask depends on what was answered, or on the kind of model
        assert _values(asked.measured([_simple(a) for a in before])) == _values(scores)


def test_of_a_masked_model_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(chat=False)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    module = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))
    model = MaskedModel(module, tokenizer, name="masked")
    asked = Asked("disco", model, "none", tmp_path)
    answers = asked.answers("none")
    assert _plain(asked.measured(answers).records) == asked.records("none")
    assert _plain(asked.measured([asdict(a) for a in answers]).records) == asked.records("none")
    with pytest.raises(SettingsError, match=r"disco, item '.*': .* give a Filled for every item"):
        asked.measured([0.5] * len(answers))
