"""`fairsteer`: a gate that never opens changes nothing, and one that is always open is no gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import evenhand
from evenhand.core.registry import build_method
from evenhand.errors import SettingsError
from evenhand.interfaces import Choice, Model, Question, Sampling, TrainData
from evenhand.methods.steering import fairsteer as module
from evenhand.methods.steering._lesson import contrasts, divided, lesson
from evenhand.methods.steering._steered import Steered
from evenhand.methods.steering.fairsteer import FairSteer
from evenhand.models.tokenization import Encoder
from evenhand.testing.scripted import questions

from .steering_pairs import DATA, PEOPLE, TRAITS, in_all_orders, lettered, tiny

ASKED = [Question(p.id, "", ("x", "y", "z"), dialogue=p.prompt) for p in lettered() if not isinstance(p.prompt, str)]


def applied(model: Model, data: TrainData = DATA, **more: Any) -> Steered:
    given = {"layer": 0, "fit_at": "answer", "strength": 3.0, **more}
    made = FairSteer.build(**given).apply(model, data)
    assert isinstance(made, Steered)
    return made


def answers(model: Model) -> list[tuple[float, ...] | None]:
    return [c.probabilities for c in model.choose(ASKED)]


@pytest.fixture(autouse=True)
def few_answers_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model may favour one letter, so that few answers are left of a kind."""
    monkeypatch.setattr(module, "LEAST_ROWS", 2)


def near(one: list[Any], other: list[Any]) -> bool:
    return bool(torch.allclose(torch.tensor(one), torch.tensor(other), atol=1e-5))


def test_a_gate_that_is_never_open_changes_nothing_and_one_that_always_is_is_no_gate() -> None:
    model = tiny()
    before, ungated = answers(model), answers(applied(model, gate="none"))
    assert near(answers(applied(model, threshold=0.0)), before)
    assert near(answers(applied(model, threshold=1.0)), ungated)
    assert not near(before, ungated)


def test_the_probe_and_the_condition_tell_the_answers_apart() -> None:
    made = applied(tiny())
    assert made.training is not None
    found = made.training.results
    assert min(found["answered"].values()) >= 2
    assert found["condition_f1"]["0"] > 0.6
    assert set(made.fit.gates) == set(made.fit.conditions) == {0}


def test_a_prompt_is_steered_as_a_whole_or_not_at_all() -> None:
    model = tiny()
    gated, before, ungated = (answers(m) for m in (applied(model, gate="prompt"), model, applied(model, gate="none")))
    assert all(near([g], [b]) or near([g], [u]) for g, b, u in zip(gated, before, ungated, strict=True))
    opened = [not near([g], [b]) for g, b in zip(gated, before, strict=True)]
    assert any(opened)
    assert not all(opened)


def test_one_fit_serves_every_gate_and_threshold() -> None:
    model = tiny()
    keys = {
        FairSteer(**more).key(model, lesson("x", DATA, (), None)) for more in ({}, {"gate": "none"}, {"threshold": 0.3})
    }  # type: ignore[arg-type]
    assert len(keys) == 1
    other = FairSteer(penalty=0.1).key(model, lesson("x", DATA, (), None))
    assert other not in keys


def test_what_is_saved_is_the_same_model(tmp_path: Path) -> None:
    tiny().save(tmp_path / "base")
    base = evenhand.load(str(tmp_path / "base"))
    for gate in ("token", "prompt"):
        made = applied(base, gate=gate)
        made.save(tmp_path / gate)
        again = evenhand.load(str(tmp_path / gate), trust_folder=True)
        assert again.fingerprint == made.fingerprint
        assert near(answers(again), answers(made))


def test_the_paper_splits_rows_and_the_default_splits_templates() -> None:
    model = tiny()
    found = contrasts(model, Encoder(model.weights.tokenizer), lesson("x", DATA, (), None))
    by_template, by_row = (divided(found, split, 0.3, 0) for split in ("template", "row"))  # type: ignore[arg-type]

    def traits(some: list[Any]) -> set[str]:
        return {trait for c in some for trait in TRAITS if f"was {trait}?" in c.text}

    assert not traits(by_template[0]) & traits(by_template[1])
    assert traits(by_row[0]) & traits(by_row[1])
    paper = build_method("fairsteer(preset=paper)")
    assert isinstance(paper, FairSteer) and paper.splitting == "row"


def test_labelled_questions_are_contrasted_with_the_stereotyped_or_else_the_likeliest_wrong_option() -> None:
    model = tiny()
    asked = [
        Question(p.id, f"Who was {trait}?", (f"The {a}", f"The {b}", "Not known"), context=f"The {a} met the {b}.")
        for p, (a, b, trait) in zip(lettered(), [(a, b, t) for a, b in PEOPLE for t in TRAITS], strict=True)
    ]
    alone = lesson("x", TrainData(tuple(asked), (2,) * len(asked)), (), None)
    found = contrasts(model, Encoder(model.weights.tokenizer), alone)
    choices: list[Choice] = model.choose(asked)
    likelier = [0 if c.probabilities and c.probabilities[0] > c.probabilities[1] else 1 for c in choices]
    assert [c.biased for c in found] == likelier
    assert {c.other for c in found} == {2}
    both = lesson("x", TrainData(tuple(asked), (2,) * len(asked), (), lettered()), (), None)
    named = contrasts(model, Encoder(model.weights.tokenizer), both)
    assert len(named) == len(asked)  # pairs that the questions name are not there twice
    assert [c.biased for c in named] == ["AB".index(p.stereotyped) for p in lettered()]
    assert {(c.unknown, c.right) for c in named} == {(2, 2)}


def test_answers_of_one_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_ROWS", 1000)
    with pytest.raises(SettingsError, match="a probe needs at least 1000"):
        applied(tiny())


def test_the_papers_preset_runs() -> None:
    made = FairSteer.build(preset="paper").apply(tiny(), TrainData(pairs=in_all_orders()))
    assert made.choose(questions(1))[0].decision is not None
    assert ASKED[0].dialogue is not None
    assert made.generate([ASKED[0].dialogue], Sampling(max_new_tokens=2))[0].text is not None
