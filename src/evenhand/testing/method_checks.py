"""The contract of a method, checked on a tiny model."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evenhand.core import registry
from evenhand.experiment.contracts import CHANGED, NonconformingError, check_mitigated, checked, demand
from evenhand.interfaces import Method, Model, TrainData
from evenhand.models import fingerprint
from evenhand.models.loading import load
from evenhand.models.mitigated import Mitigated
from evenhand.models.tiny import tiny_model
from evenhand.testing.answer_checks import Answers, answers_of, check_batches, random_state, same_answers
from evenhand.testing.variants import variants

COPY = (
    "ask it through evenhand.Mitigated, or edit a copy: evenhand.wrap(copy.deepcopy(model.weights.module), "
    "model.weights.tokenizer)"
)


def check_method(
    method: Method,
    model: Model | None = None,
    data: TrainData | None = None,
    *,
    batch_dependent: bool = False,
    others: Iterable[Method] = (),
) -> Model:
    """Check that a method keeps its contract, and return the mitigated model for further tests.

    It must not change the weights or answers of the model that it is given; be rebuilt from its spec; answer every
    question with a distribution over the options or state that there is none, whatever else is asked in the same call;
    be deterministic, whatever the state of the global random generators; have a fingerprint that differs from those of
    the model and of the same method with other settings; and survive saving and loading. Rebuilding is checked only if
    the method is registered, and so is saving, unless the result is a model that `load` opens without the method.

    Args:
        method: The method to check.
        model: The model that it is applied to; None for a tiny random model.
        data: Data that it may fit on.
        batch_dependent: Whether an answer may depend on the other questions of the call, as for a method that
            estimates a prior from them.
        others: Instances that differ from `method` in one setting each, whose fingerprints must differ if their
            answers do. Without training data, instances are also made from the types of the settings.

    Raises:
        NonconformingError: It does not keep the contract; the message says where, and what to do about it.
    """
    model = model or tiny_model(source="demo")
    reason = method.unsupported_reason(model, data)
    demand(not reason, f"cannot be applied to {model.name}: {reason}")
    untouched = answers_of(model)
    mitigated, answers = _applied(method, model, data, untouched)
    _check_repeatable(method, model, data, mitigated, answers)
    if not batch_dependent:
        check_batches(mitigated, answers)
    demand(
        same_answers(answers, untouched) or mitigated.fingerprint != model.fingerprint,
        f"{method.name} answers differently from {model.name} under the same fingerprint, so that answers of the one "
        "would be taken for the other's; return evenhand.Mitigated(model, self, ...), whose fingerprint has the method",
    )
    for other in others:
        _check_told_apart(method, other, other.apply(model, data), mitigated, answers)
    for other in () if data else variants(method):
        if (changed := _tried(other, model)) is not None:
            _check_told_apart(method, other, changed, mitigated, answers)
    _check_saved(method, model, mitigated, answers)
    return mitigated


def _applied(method: Method, model: Model, data: TrainData | None, untouched: Answers) -> tuple[Model, Answers]:
    """Return the mitigated model and its answers, and check that the model below has not changed."""
    before = model.fingerprint
    with random_state(1):
        mitigated = check_mitigated(method.apply(model, data))
        with checked(mitigated, model):
            answers = answers_of(mitigated)
    model.rehash()
    demand(model.fingerprint == before, f"{CHANGED}: its fingerprint has changed. Leave the model as it is: {COPY}")
    same = same_answers(answers_of(model), untouched)
    demand(same, f"{CHANGED}: it answers differently now. Leave the model as it is: {COPY}")
    return mitigated, answers


def _check_repeatable(method: Method, model: Model, data: TrainData | None, mitigated: Model, answers: Answers) -> None:
    """Check that it answers the same when applied or asked again, in any state of the global generators."""
    seed = (
        "draw from random.Random(self.seed), or from a torch generator of that seed"
        if any(name == "seed" for name in method.settings)
        else "give it a setting `seed: int = 0`, and draw from random.Random(self.seed)"
    )
    with random_state(2):
        again = method.apply(model, data)
        answered = answers_of(again)
    told = f"the same settings and model gave different answers, so it draws at random without a seed; {seed}"
    demand(same_answers(answered, answers), told)
    demand(
        again.fingerprint == mitigated.fingerprint,
        f"the same settings and model gave different fingerprints, so it draws at random without a seed; {seed}",
    )
    with random_state(3):
        answered = answers_of(again)
    told = f"the same model answered differently when it was asked again; {seed}"
    demand(same_answers(answered, answers), told)


def _tried(other: Method, model: Model) -> Model | None:
    """Apply an instance with a made-up setting; None if it refuses or fails in any way."""
    try:
        return None if other.unsupported_reason(model) else other.apply(model)
    except Exception:  # a text may be the name of a file, a number the key of a table
        return None


def _check_told_apart(method: Method, other: Method, changed: Model, mitigated: Model, answers: Answers) -> None:
    """Check that another instance has another fingerprint, unless it answers the same."""
    if changed.fingerprint == mitigated.fingerprint:
        differing = [f"{k}={other.settings[k]!r}" for k, v in method.settings.items() if other.settings.get(k) != v]
        demand(
            same_answers(answers_of(changed), answers),
            f"{', '.join(differing)} changed the answers but not the fingerprint, so that answers with the one value "
            "would be taken for those with the other; return evenhand.Mitigated(model, self, ...), whose fingerprint "
            "has all settings, or pass what they stand for in depends_on=",
        )


def _check_saved(method: Method, model: Model, mitigated: Model, answers: Answers) -> None:
    """Check that a registered method is built again from its spec, and that its result survives saving and loading."""
    registered = method.name in registry.methods.names()
    if registered:
        again = registry.build_method(method.spec)
        demand(again == method, f"its spec {method.spec!r} does not build it again")
    elif isinstance(mitigated, Mitigated) or mitigated is model:
        return  # a saved folder names the method, which only a registry can find
    with tempfile.TemporaryDirectory() as folder:
        loaded = _opened(mitigated, Path(folder))
        demand(
            same_answers(answers_of(loaded), answers),
            "saving and loading changed its answers; save() must write all that decides them",
        )
        same = _identity(loaded, loaded) == _identity(mitigated, loaded)
        demand(
            same,
            "saving and loading changed what its fingerprint is made of, so that nothing answered before would be "
            "found again; save() must write all weights, and restore() give Mitigated the same depends_on= as apply()",
        )


def _opened(mitigated: Model, folder: Path) -> Model:
    """Save a model to a folder and load it again."""
    try:
        return load(mitigated.save(folder), trust_folder=True)  # its base may be anywhere
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise NonconformingError(
            f"saved, it cannot be loaded again ({told}). What it learned belongs in Mitigated(..., keep=), which "
            "writes it to a folder, and restore(model, folder), which reads it"
        ) from error


def _identity(made: Model, loaded: Model) -> Any:
    """Return what a fingerprint keeps when saved: that of weights in memory differs from that of the same in files."""
    if isinstance(made, Mitigated) and isinstance(loaded, Mitigated):
        moved = copy.copy(made)
        moved.base = loaded.base
        return moved.fingerprint
    if "weights" in made.abilities:
        return fingerprint.content_of(made.weights.module), fingerprint.of_tokenizer(made.weights.tokenizer)
    return made.fingerprint
