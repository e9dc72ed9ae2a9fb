"""A model wrapped by a method: the result of methods that change questions or answers rather than weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from evenhand.core import specs
from evenhand.core.hashing import digest
from evenhand.errors import EvenhandError, MissingAbilityError, SettingsError
from evenhand.interfaces import (
    Ability,
    Choice,
    Combine,
    Dialogue,
    Method,
    Model,
    Passage,
    Question,
    Reply,
    Sampling,
    Score,
    TrainingRecord,
    Weights,
    stacked,
)
from evenhand.models import saved
from evenhand.models.files import LEARNED
from evenhand.models.first_process import write_in_first

ASKING = ("answer_by", "sampling", "too_long", "thinking_tokens")
"""Attributes that are also options of `evenhand.load`."""
Choose = Callable[[Sequence[Question]], list[Choice]]
Generate = Callable[[Sequence[Dialogue], Sampling], list[Reply]]
ScoreVerb = Callable[[Sequence[Passage]], list[Score]]


OWN_FACTS = (
    *("name", "abilities", "source", "device", "parameters", "demo", "dtype", "answer_by", "prompt_format"),
    *("generation_config_ignored", "thinking", "system_turn", "prompt_date"),
)
"""Facts that models determine themselves; they never count as facts of a training record, even if equal."""


def _of_base(name: str) -> Any:
    """Define an attribute whose value is the base's."""
    return _fixed(name, attrgetter(f"base.{name}"), f"`{name}` of the base.")


def _fixed(name: str, value: Callable[[Mitigated], Any], about: str) -> Any:
    """Define an attribute that follows from base and methods and cannot be set; `Model` declares its type."""

    def refuse(model: Mitigated, given: object) -> NoReturn:
        raise model.not_settable(name)

    return property(value, refuse, doc=about)


class Mitigated(Model):
    """A base model with some verbs replaced; everything else is the base's, at any depth of a stack.

    Only prefixes are refused (`behind`): a model guided by them would answer without the method.

    Example:
        `Mitigated(model, self, choose=lambda questions: model.choose([shout(q) for q in questions]))`
    """

    base: Model
    method: Method
    _training: TrainingRecord | None

    source = _of_base("source")
    inside_saved = _of_base("inside_saved")
    load_options = _of_base("load_options")
    too_long = _of_base("too_long")
    thinking_tokens = _of_base("thinking_tokens")
    architecture = _of_base("architecture")
    context_length = _of_base("context_length")
    asking = _of_base("asking")
    precision = _of_base("precision")
    edited = _of_base("edited")
    weights_hash = _of_base("weights_hash")
    save_refused = _fixed(
        "save_refused",
        lambda model: why if (why := model.base.save_refused) and not model.base.unedited_source else "",
        "Reason why the base cannot be saved in full, if it has to be; else empty.",
    )
    declared = _fixed(
        "declared",
        lambda model: stacked([model.base.declared, model.method.reading(model.base)]),
        "How the methods, at any depth of the stack, have answers read; `OPEN` if none specifies it.",
    )
    answer_by = _fixed(
        "answer_by",
        lambda model: model.declared.answer_by or model.base.answer_by,
        "How `choose` reads an answer if a question does not specify it: as a method declares, else as the base.",
    )
    sampling = _fixed(
        "sampling",
        lambda model: model.declared.sampling or model.base.sampling,
        "How `choose` generates if a question does not specify it: as a method declares, else as the base.",
    )
    training = _fixed(
        "training",
        lambda model: model._training or model.base.training,
        "Training record of the method, else of the base.",
    )

    def __init__(
        self,
        base: Model,
        method: Method,
        *,
        choose: Choose | None = None,
        generate: Generate | None = None,
        score: ScoreVerb | None = None,
        abilities: frozenset[Ability] | None = None,
        depends_on: Sequence[str] = (),
        keep: Callable[[Path], None] | None = None,
        training: TrainingRecord | None = None,
    ) -> None:
        """Replace verbs of a base model by functions.

        Args:
            base: Model that the functions ask.
            method: Method that made the functions; its spec becomes part of name and fingerprint.
            choose: Replaces `choose`.
            generate: Replaces `generate`.
            score: Replaces `score`.
            abilities: Abilities of the result, if they differ from the base's.
            depends_on: Hashes of what settings only refer to, such as a file or a model, or of what was learned; part
                of the fingerprint.
            keep: Writes what was learned to a folder, for the method's `restore`; None if nothing was, or if the
                record has all of it.
            training: How the method was trained; saved with what was learned. None if it was not trained.
        """
        self.base, self.method = base, method
        self.name = f"{base.name}+{method.spec}"
        self._verbs: dict[str, Any] = {"choose": choose, "generate": generate, "score": score}
        self._abilities = base.abilities if abilities is None else abilities
        self._depends_on = tuple(depends_on)
        self._keep, self._training = keep, training

    @property
    def abilities(self) -> frozenset[Ability]:
        """Abilities of the base, unless the method specified others."""
        return self._abilities

    @property
    def fingerprint(self) -> str:
        """Hash of the base, the method, its settings, and what these depend on."""
        return digest(self.base.fingerprint, self.method.name, self.method.key_settings(), *self._depends_on)

    @property
    def methods(self) -> tuple[str, ...]:  # type: ignore[override]
        """Specifications of the base's methods, followed by this method's."""
        return (*self.base.methods, self.method.spec)

    @property
    def acts_on(self) -> frozenset[str]:
        """Verbs that methods replace, at any depth of a stack."""
        inner = self.base.acts_on if isinstance(self.base, Mitigated) else frozenset[str]()
        return inner | {verb for verb, function in self._verbs.items() if function is not None}

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Choose as the method does, or as the base."""
        return self._verb("choose")(questions)  # type: ignore[no-any-return]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Generate as the method does, or as the base."""
        return self._verb("generate")(dialogues, sampling)  # type: ignore[no-any-return]

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Score as the method does, or as the base."""
        return self._verb("score")(passages)  # type: ignore[no-any-return]

    @property
    def supports_prefixes(self) -> bool:
        """Always False, whatever the base supports."""
        return False

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> NoReturn:
        """Refuse prefixes, since the result would answer without the method.

        Raises:
            MissingAbilityError: Always; the message names the model below all methods.
        """
        inner, around = self.base, self.method.spec
        while isinstance(inner, Mitigated):
            around = f"{inner.method.spec}+{around}"
            inner = inner.base
        if inner.supports_prefixes:
            reason = (
                f"{inner.name!r}, the model below, can, but it would answer without {around}. Apply the method that "
                "uses prefixes first: 'self_debias_decoding+instruction', not 'instruction+self_debias_decoding'"
            )
        else:
            reason = (
                f"{inner.name!r}, the model below, is not a causal model in this process. Open its weights with "
                "evenhand.load or evenhand.wrap"
            )
        raise MissingAbilityError(f"model {self.name!r} cannot be guided by prefixes: {reason}")

    @property
    def weights(self) -> Weights:
        """The base's weights."""
        return self.base.weights

    @weights.setter
    def weights(self, given: Weights) -> None:
        raise SettingsError(
            f"the weights of {self.name} are those of {self.base.name}, the model below the method, and cannot be set "
            "here: apply the method to a model with other weights"
        )

    @contextmanager
    def editing(self) -> Iterator[Weights]:
        """Give the base's weights for changing them."""
        with self.base.editing() as weights:
            yield weights

    def rehash(self) -> None:
        """Hash the base's weights now."""
        self.base.rehash()

    def facts(self) -> dict[str, Any]:
        """Return the base's facts and the method; "training" has the facts of `training`, the method's or the base's.

        Facts of the method's own training are also at the top level, where earlier versions had them; those of the
        base's do not, since they would be taken for the method's.
        """
        record, of_base = self.training, {} if self.base.training is None else self.base.training.facts()
        found = {
            key: value
            for key, value in self.base.facts().items()
            if key in OWN_FACTS or key not in of_base or value != of_base[key]
        }
        own = {} if self._training is None else self._training.facts()
        nested = {} if record is None else {"training": record.facts()}
        about = {"name": self.name, "method": self.method.spec, "abilities": sorted(self.abilities)}
        return {**own, **found, **nested, **about}

    def not_settable(self, name: str) -> SettingsError:
        """Return the error for setting an attribute that follows from the base and the methods around it."""
        below: Model = self
        while isinstance(below, Mitigated):
            below = below.base
        source = "the model" if below.source is None else specs.shown(below.source)
        option = f", such as evenhand.load({source}, {name}=...)" if name in ASKING and below.source else ""
        return SettingsError(
            f"{name} of {self.name} follows from {below.name}, the model below the methods, and the methods, and "
            f"cannot be set here: apply the methods to a model with another {name}{option}"
        )

    def save(self, folder: str | Path) -> Path:
        """Write the method's name and settings, and the base: by reference if its files are unchanged, else in full.

        A base inside a saved folder is copied as well, so that the result does not depend on that folder.
        In a distributed launch the first process writes, and the others wait.
        """
        folder = Path(folder)
        if reason := self.save_refused:  # before anything is written
            raise SettingsError(reason)
        write_in_first(folder, lambda: self._write(folder))
        return folder

    def _write(self, folder: Path) -> None:
        saved.begin(folder)
        content = {
            "kind": "mitigated",
            "method": {self.method.name: self.method.settings},
            "base": {**self._saved_base(folder), "fingerprint": self.base.fingerprint},
        }
        if self._keep is not None or self._training is not None:
            self._save_learned(folder / LEARNED)
        saved.write(folder, content)

    def _save_learned(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        if self._keep is not None:
            self._keep(folder)
        if self._training is not None:
            saved.write_learned(folder, self._training)

    def _saved_base(self, folder: Path) -> dict[str, Any]:
        """Return where a saved copy has its base, and the options for opening it."""
        base = self.base
        if isinstance(base, Mitigated):  # its own file has the options for asking
            return {"folder": base.save(folder / "base").name, "options": {}}
        if base.source is None or base.edited:
            place = base.save(folder / "base")
            options = {**base.asking, **base.precision}
            if saved.adds_a_name(place):
                options.pop("name", None)
            return {"folder": place.name, "options": options}
        options = {**base.load_options, **base.asking}
        if base.inside_saved:
            return {"folder": _copied(Path(base.source), folder / "base").name, "options": options}
        return {"source": base.source, "options": options}

    def _verb(self, verb: str) -> Any:
        return self._verbs[verb] or self.base.verbs[verb]


def _copied(source: Path, target: Path) -> Path:
    """Copy the files of an unchanged base as they are, so that its fingerprint stays; the same folder is not touched.

    Raises:
        EvenhandError: The files are missing, or cannot be copied.
    """
    if target.resolve() == source.resolve():
        return target
    beside = target.with_name(f"{target.name}.new")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # left by a copy that was interrupted
        shutil.copytree(source, beside)
        if target.is_dir():  # from an earlier save; the source may lie in it
            shutil.rmtree(target)
        beside.rename(target)
    except (OSError, shutil.Error) as error:
        raise EvenhandError(f"cannot copy the base {source} to {target}: {error}; load the model again") from error
    return target
