"""The nouns of evenhand; read this file first.

A `Method` turns a `Model` into a `Model`; a `Benchmark` turns a `Model` into scores. A model has up to three verbs,
each over whole lists: `choose` (among options), `generate` (a reply) and `score` (a log-probability). A fourth
ability, `weights`, means that it has a torch module and tokenizer that can be trained, edited and saved.
"""

from __future__ import annotations

import keyword
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import inf
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    dataclass_transform,
    runtime_checkable,
)

from typing_extensions import TypeVar

from evenhand.errors import SHOWN, MissingAbilityError, SettingsError, short, suggest
from evenhand.renaming import old_fields, translated, warn
from evenhand.renaming.benchmarks import OldInfo, rename_old_parts, warn_of_old_form
from evenhand.renaming.methods import OLD_FORMS, is_asked, reason_above, warn_of_old_function
from evenhand.renaming.settings import accept_old_names, declared_old_names, rename_overridden

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ability = Literal["choose", "generate", "score", "weights"]
Role = Literal["system", "user", "assistant"]
AnswerBy = Literal["letters", "text", "text_per_token", "text_with_end", "generation"]
TooLong = Literal["error", "skip"]
"""How an item that does not fit the context is handled: as an error, or left unanswered."""
Architecture = Literal["causal", "masked", "seq2seq"]
UNLIMITED = 10**9
"""The context length of a model that states none."""
T = TypeVar("T")


# ----------------------------------------------------------------------------------------------- what is asked


class Message(NamedTuple):
    """One turn of a dialogue."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation up to the assistant's next turn."""

    messages: tuple[Message, ...]
    """Turns so far, oldest first."""
    draw: int = 0
    """Number of this sample among independent samples of the same request; matters only if sampling is random."""

    def user(self, content: str) -> Dialogue:
        """Return a copy with one more user turn."""
        return self._with(Message("user", content))

    def assistant(self, content: str) -> Dialogue:
        """Return a copy with one more assistant turn."""
        return self._with(Message("assistant", content))

    def _with(self, turn: Message) -> Dialogue:
        messages = (*self.messages, turn)
        return Dialogue(messages, self.draw) if type(self) is Dialogue else replace(self, messages=messages)


FIRST_NAMES = {"counter_stereotyped": "other", "suffix": "after", "axis": "topic"}
"""Renamed fields of questions, passages and pairs, with their original names."""


def first_names(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return values by field under their original names; a `dict_factory` of `dataclasses.asdict` for keys."""
    return {FIRST_NAMES.get(name, name): value for name, value in values}


def in_first_names(thing: object) -> str:
    """Return the `repr` of questions or pairs with fields under their original names.

    It serves as a key of stored content, so that what was stored before a field was renamed is still found.
    """
    text = repr(thing)
    for name, first in FIRST_NAMES.items():
        text = text.replace(f" {name}=", f" {first}=")
    return text


@old_fields(topic="axis")
@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question. Options have an identity (their index), which is independent of the shown order."""

    id: str
    """Id of the item in errors and records; never shown to the model."""
    question: str
    options: tuple[str, ...]
    """Option texts by identity, 0 .. K-1."""
    context: str = ""
    header: str = ""
    """Text before the question and its demonstrations."""
    shots: tuple[Shot, ...] = ()
    """Demonstrations, between header and question."""
    shown: tuple[int, ...] | None = None
    """`shown[j]` is the identity of the option at position j; None is the order of `options`."""
    template: str = "letters"
    """Name of the renderer in `evenhand.prompting.rendering` that turns this into text."""
    dialogue: Dialogue | None = None
    """A ready prompt that replaces the rendered one (it must show the options in the order of `shown`)."""
    answer_by: AnswerBy | None = None
    """How the answer is read; None leaves it to the model's own setting."""
    draw: int = 0
    """Number of this sample among independent ones, if the answer is generated by sampling."""
    sampling: Sampling | None = None
    """How a generated answer is sampled; None leaves it to the model's own setting."""
    axis: str = ""
    """Dimension of social groups that the item is about, as its benchmark names it; used by methods, and never shown
    unchanged."""

    @property
    def preamble(self) -> str:
        """Everything before the question itself: the header, then the demonstrations."""
        return self.header + "".join(shot.text for shot in self.shots)

    @property
    def head(self) -> str:
        """Old name of `preamble`; it works for one release."""
        warn("Question", {"head": "preamble"})
        return self.preamble

    @property
    def order(self) -> tuple[int, ...]:
        """The shown order, spelled out: identity of the option at each position."""
        return self.shown if self.shown is not None else tuple(range(len(self.options)))

    def position_of(self, option: int) -> int:
        """Return the position, from 0, at which an option is shown; the inverse of `option_at`."""
        return option if self.shown is None else self.shown.index(option)

    def option_at(self, position: int) -> int:
        """Return the identity of the option shown at a position; the inverse of `position_of`."""
        return position if self.shown is None else self.shown[position]

    def reordered(self, shown: Sequence[int]) -> Question:
        """Return the same question with its options shown in another order.

        Raises:
            SettingsError: `shown` is not a permutation, or the prompt is a ready dialogue that already fixes an order.
        """
        if sorted(shown) != list(range(len(self.options))):
            raise SettingsError(
                f"{self.id}: {tuple(shown)} is not an order of {len(self.options)} options; "
                f"give a permutation of 0..{len(self.options) - 1}"
            )
        if self.dialogue is not None:
            raise SettingsError(
                f"{self.id}: its prompt is a ready dialogue whose order is fixed. Put the method that re-orders "
                "after the one that writes dialogues: 'self_debias+permutation', not 'permutation+self_debias'"
            )
        return self.altered(shown=tuple(shown))

    def altered(self, **fields: Any) -> Question:
        """Return the question with other values in the given fields.

        Methods alter every question several times, and `dataclasses.replace` takes five times as long.

        Raises:
            AttributeError: A field does not exist.
        """
        if type(self) is not Question:  # a subclass may have more fields
            return replace(self, **fields)
        made, put = object.__new__(Question), object.__setattr__
        for name, value in zip(Question.__slots__, _values_of_question(self), strict=True):
            put(made, name, value)
        for name, value in fields.items():
            put(made, name, value)
        return made


_values_of_question = attrgetter(*Question.__slots__)


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved question before another one."""

    text: str
    """The demonstration as shown, including the answer and the separator before the next one."""
    question: Question
    """The question as it would be asked, without header and demonstrations."""
    answer: int
    """Identity of the right option."""


@old_fields(after="suffix")
@dataclass(frozen=True, slots=True)
class Passage:
    """A text to score: the log-probability of `continuation` after `prompt` (which may be empty, or a dialogue)."""

    continuation: str
    prompt: str | Dialogue = ""
    id: str = ""
    """Id of the item in errors."""
    suffix: str = ""
    """Text that follows the continuation. A masked model sees it, and scores only the continuation; a causal one cannot
    look ahead, and scores both together. So the difference between two continuations means the same for either: their
    log-odds given the text on both sides."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How replies are sampled.

    Temperature 0 takes the most probable token; otherwise every request has its own seed, so that a reply depends on
    (seed, request, draw) and not on the batch in which it was computed.
    """

    temperature: float = 0.0
    max_new_tokens: int = 256
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Strings that end a reply, and are cut off."""

    def __post_init__(self) -> None:
        """Refuse values that no sampler can follow."""
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise SettingsError(f"{self}: temperature must be >= 0, top_p in (0, 1], max_new_tokens >= 1")


@dataclass(frozen=True, slots=True)
class Reading:
    """How answers to multiple-choice questions are read. None leaves it to the question, and then to the model."""

    answer_by: AnswerBy | None = None
    sampling: Sampling | None = None
    """How an answer is sampled; it matters only if answers are generated."""

    @property
    def label(self) -> str:
        """Short text for tables, such as "letters" or "generation, T=1"; with a temperature only if it matters."""
        parts: list[str] = [self.answer_by] if self.answer_by else []
        if self.sampling is not None and self.answer_by in (None, "generation"):
            parts.append(f"T={self.sampling.temperature:g}")
        return ", ".join(parts)

    def put(self, question: Question) -> Question:
        """Return the question to be read this way: this `answer_by` replaces its own, but its own sampling stays."""
        answer_by, sampling = self.answer_by or question.answer_by, question.sampling or self.sampling
        if answer_by == question.answer_by and sampling is question.sampling:
            return question
        return question.altered(answer_by=answer_by, sampling=sampling)


OPEN = Reading()
"""A reading that leaves everything to the question and the model."""


def stacked(readings: Iterable[Reading | None]) -> Reading:
    """Combine the readings of stacked methods, the innermost first.

    It follows from `Reading.put`: the innermost method is the last to set `answer_by`, the outermost the first to set
    the sampling.
    """
    declared = [r for r in readings if r is not None]
    answer_by = next((r.answer_by for r in declared if r.answer_by), None)
    return Reading(answer_by, next((r.sampling for r in reversed(declared) if r.sampling), None))


# ------------------------------------------------------------------------------------------- what is answered


@dataclass(frozen=True, slots=True)
class Usage:
    """Cost of an answer. Answers taken from the cache keep the cost of their computation."""

    calls: int = 0
    """Number of requests to a loaded model."""
    prompt_tokens: int = 0
    new_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Add two costs."""
        return Usage(
            self.calls + other.calls, self.prompt_tokens + other.prompt_tokens, self.new_tokens + other.new_tokens
        )

    @classmethod
    def total(cls, costs: Iterable[Usage]) -> Usage:
        """Add any number of costs; the sum of none is 0."""
        calls = prompt_tokens = new_tokens = 0
        for cost in costs:
            calls += cost.calls
            prompt_tokens += cost.prompt_tokens
            new_tokens += cost.new_tokens
        return cls(calls, prompt_tokens, new_tokens)


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to one `Question`."""

    decision: int | None
    """Identity of the chosen option; None if the reply could not be parsed or is missing."""
    probabilities: tuple[float, ...] | None = None
    """Distribution over option identities; None if only a decision is known (black boxes)."""
    status: Literal["answered", "unparsed", "unanswered"] = "answered"
    reply: str = ""
    """The text from which the decision was read, if it was generated."""
    mass: float | None = None
    """Probability of the next token being any option letter; small values mean that the model ignores the format."""
    before: tuple[Message, ...] = ()
    """Turns that a method added before the final answer, for the record."""
    usage: Usage = Usage()
    note: str = ""
    """Why there is no decision, or what a method could not do on the way to it."""
    cut: bool = False
    """Whether the reply was cut at `max_new_tokens`; it has a decision only if it already has the form of an answer."""
    unread: float | None = None
    """Upper bound of the share of the options' total probability that belongs to options whose letters a server did not
    list; None if every letter was read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one `Dialogue`; `text` is None if it is missing."""

    text: str | None
    usage: Usage = Usage()
    finished: bool = True
    """False if the reply was cut at `max_new_tokens`."""
    note: str = ""
    """Why there is no text."""
    before: tuple[Message, ...] = ()
    """Turns that a method added before the final reply, for the record."""


class Score(NamedTuple):
    """Log-probability (natural log, summed over tokens) of a passage's continuation."""

    logprob: float
    tokens: int
    """Number of tokens summed over; 0 if there is none, and `logprob` is nan then."""
    note: str = ""
    """Why there is no sum: the text is too long for the context, or its logits are not finite."""


Combine = Callable[["Tensor"], "Tensor"]
"""Turns logits or log-probabilities of a prompt and its companion texts, [rows, 1 + others, tokens], into those of one
distribution, [rows, tokens], normalised or not; each row by itself."""


@dataclass(frozen=True, kw_only=True)
class TrainedFrom:
    """The model from which a training started; None where unknown."""

    name: str | None = None
    """Label of the model in tables."""
    source: str | None = None
    """What `evenhand.load` takes to load it, for information only; None also for edited weights, objects in memory and
    models with methods around them."""
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """The data of a training; None where unknown."""

    unit: str = "items"
    """What is counted: texts, pairs, questions, lessons."""
    source: str | None = None
    """Where the data came from, as the settings name it."""
    hash: str | None = None
    """Hash of the content, including the validation part."""
    training: int | None = None
    """Number of units trained on."""
    validation: int | None = None
    """Number of units held out."""
    overlap_removed: int | None = None
    """Number of units left out because a benchmark asks them."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """Record of a training, the same for every method. None and empty values mean "unknown".

    `evenhand.core.training_record` makes records, and reads them from files.
    """

    method: str
    """Registered name of the method."""
    spec: str = ""
    """Name and settings, as tables show them."""
    settings: Mapping[str, Any] | None = None
    """All settings under their present names, as JSON values."""
    base: TrainedFrom = TrainedFrom()
    data: TrainedOn = TrainedOn()
    precision: str | None = None
    """Precision of matrix products: no (float32), bf16 or fp16; "auto" is resolved."""
    seed: int | None = None
    epochs: int | None = None
    """Number of finished passes over the data."""
    steps: int | None = None
    """Number of optimizer steps."""
    best_epoch: int | None = None
    """The epoch whose weights were kept, as the curve counts them."""
    curve: tuple[Mapping[str, float | None], ...] = ()
    """Rows of numbers by name, such as `epoch`, `train_loss` and `held_out_loss`, in their order."""
    seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of evenhand, torch and transformers."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """Results specific to the method, as JSON values: priors, a chosen strength, what was left out."""

    def facts(self) -> dict[str, Any]:
        """Return flat facts for reports: the specification, counts by unit, the course of training, and the results.

        The names are those that earlier versions used, such as `held_out_texts` for `data.validation`.
        """
        found = {
            "method": self.spec or self.method,
            "base": self.base.name,
            self.data.unit: self.data.training,
            f"held_out_{self.data.unit}": self.data.validation,
            "steps": self.steps,
            "seconds": self.seconds,
            "best_epoch": self.best_epoch,
            "overlap_removed": self.data.overlap_removed,
            "curve": [dict(row) for row in self.curve] or None,
        }
        return {**{key: value for key, value in found.items() if value is not None}, **self.results}


class Weights(NamedTuple):
    """Module and tokenizer of a model: for reading, or within `Model.editing` for changing."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


# -------------------------------------------------------------------------------------------------- the model


class Model(ABC):
    """Something that answers. What it cannot do is not listed in `abilities`, and raises an error when asked.

    A subclass has to define a name, `abilities`, `fingerprint`, `save` and the verbs that it lists. Everything else has
    a default that means "unknown" or "not possible", so that callers need not ask what kind of model they have.
    """

    name: str
    """Short label for tables."""
    source: str | None = None
    """What `evenhand.load` takes to load the weights again, below any methods around them; None for an object in
    memory. It loads the model itself only if `methods` is empty."""
    methods: tuple[str, ...] = ()
    """Specifications of the methods around the model, innermost first, except those that changed its weights."""
    inside_saved: bool = False
    """Whether `source` is the base's folder inside a saved folder; saving a method around it copies that folder."""
    load_options: Mapping[str, Any] = MappingProxyType({})
    """Options with which it was loaded, such as quantisation and revision, as JSON values."""
    answer_by: AnswerBy | None = None
    """How `choose` reads the answer if a question does not set it; None if the model knows one way only."""
    sampling: Sampling | None = None
    """How `choose` generates if a question does not set it; None if the model has no such setting."""
    too_long: TooLong | None = None
    """How items that do not fit the context are handled; None if the model has no such setting."""
    thinking_tokens: int | None = None
    """Maximum length of a thought before the answer, in tokens; None if the model has no such setting."""
    architecture: Architecture | None = None
    """Kind of language model; None if unknown, or if it is not a language model."""
    declared: Reading = OPEN
    """How the methods around the model, at any depth, read answers; `OPEN` if there are none."""
    context_length: int = UNLIMITED
    """Maximum number of tokens of a prompt and its continuation; `UNLIMITED` if unknown."""
    asking: Mapping[str, Any] = MappingProxyType({})
    """Options of `evenhand.load` that concern asking, as JSON values."""
    precision: Mapping[str, Any] = MappingProxyType({})
    """Option of `evenhand.load` that opens a saved copy in this model's precision."""
    edited: bool = False
    """Whether the weights differ from what `source` loads."""
    save_refused: str = ""
    """Why `save` would refuse to write the model, if that is known beforehand; else ""."""
    weights_hash: str | None = None
    """Hash of weights, configuration, adapters and tokenizer; None if the model does not store one."""
    training: TrainingRecord | None = None
    """How the model was trained by a method, in a stack by the outermost that trains; None if unknown."""

    @property
    @abstractmethod
    def abilities(self) -> frozenset[Ability]:
        """The verbs that work on this model."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that determines answers: weights, adapters, tokenizer, chat template, precision."""

    # ------------------------------------------------------------------------------------------------- the verbs

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Answer multiple-choice questions, one `Choice` each, in order."""
        raise self.unsupported("choose")

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Write the assistant's next turn of each dialogue, in order."""
        raise self.unsupported("generate")

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Compute the log-probability of each passage, in order."""
        raise self.unsupported("score")

    @property
    def verbs(self) -> dict[str, Callable[..., Any]]:
        """The three verbs by name."""
        return {"choose": self.choose, "generate": self.generate, "score": self.score}

    @property
    def supports_prefixes(self) -> bool:
        """Whether `behind` works."""
        return type(self).behind is not Model.behind

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> Model:
        """Return the same model, guided by what it would say after other texts.

        Args:
            prefixes: Texts put before a prompt, each on its own lines; with a chat template, at the
                beginning of the first user turn.
            combine: Combines the log-probabilities after no prefix and after each of them.
            settings: JSON values that `combine` depends on, for the fingerprint.

        Raises:
            MissingAbilityError: This model's token probabilities are not accessible; see `supports_prefixes`.
        """
        raise MissingAbilityError(
            f"model {self.name!r} cannot be guided by prefixes: it is not a causal model in this process, so the "
            "probabilities of its next tokens are not accessible. Open its weights with evenhand.load or evenhand.wrap"
        )

    # ---------------------------------------------------------------------------------------------------- the weights

    @property
    def weights(self) -> Weights:
        """The module and tokenizer, for reading; `editing` is for changing them.

        A subclass may define them, or set them on the object: `self.weights = Weights(module, tokenizer)`. It lists
        "weights" in `abilities`, and its `fingerprint` has to follow their content.

        Raises:
            MissingAbilityError: The model has no weights.
            SettingsError: They are set to something other than `Weights`.
        """
        found: Weights | None = vars(self).get("weights")
        if found is None:
            raise self.unsupported("weights")
        return found

    @weights.setter
    def weights(self, given: Weights) -> None:
        if not isinstance(given, Weights):
            raise SettingsError(
                f"{type(self).__name__}: weights are set to {type(given).__name__}; give "
                "evenhand.interfaces.Weights(module, tokenizer)"
            )
        vars(self)["weights"] = given

    @contextmanager
    def editing(self) -> Iterator[Weights]:
        """Yield module and tokenizer for changing them within the block; the fingerprint follows."""
        yield self.weights

    def rehash(self) -> None:  # noqa: B027  # most models have nothing to hash
        """Hash all weights now, if the model keeps their hash between calls."""

    @property
    def unedited_source(self) -> str | None:
        """`source`, if loading it gives these very weights; None for edited weights and objects in memory."""
        return self.source if self.source and not self.edited else None

    # ------------------------------------------------------------------------------------------------------- the rest

    @abstractmethod
    def save(self, folder: str | Path) -> Path:
        """Write the model to `folder` so that `evenhand.load(folder)` restores it; return the folder."""

    def facts(self) -> dict[str, Any]:
        """Return facts for reports: origin, precision, prompt format. JSON values only."""
        return {"name": self.name, "abilities": sorted(self.abilities)}

    def unsupported(self, ability: Ability) -> MissingAbilityError:
        """Return the error for an ability that this model does not have."""
        return MissingAbilityError(
            f"model {self.name!r} cannot {ability!r}; it has: {', '.join(sorted(self.abilities)) or 'nothing'}"
        )

    def lacks(self, ability: Ability) -> MissingAbilityError:
        """Old name of `unsupported`; it works for one release."""
        warnings.warn("Model.lacks() is now Model.unsupported()", DeprecationWarning, stacklevel=2)
        return self.unsupported(ability)


# ------------------------------------------------------------------------------------------------- the method


class HasSettings:
    """Base of methods and benchmarks: a frozen dataclass whose fields are its settings."""

    name: ClassVar[str]
    """Registered name."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named settings that a source prescribes, such as `paper`; other settings keep their defaults."""
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Source of each value by preset and setting: a file of the released code, or a section of the paper. The key "" is
    for all settings of the preset without a source of their own."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of settings with the present ones. Specifications, run files, saved models and calls may use the old
    names for one release; each use gives a warning with the new name. Base classes declare their own."""

    added_later: ClassVar[frozenset[str]] = frozenset()
    """Settings that a later release added, with defaults that keep the previous behaviour. Base classes declare their
    own."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as a plain dict of JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.init}  # type: ignore[arg-type]

    def key_settings(self, leave_out: Container[str] = ()) -> dict[str, Any]:
        """Return the settings for a key of stored content, such as trained weights or answers.

        A renamed setting keeps its original name here, and one added later is left out at its default, so that what was
        stored before is still found.

        Args:
            leave_out: Present names of settings that the stored content does not depend on.
        """
        first = {new: old for old, new in reversed(self.old_names().items())}
        added = {name for cls in type(self).__mro__ for name in vars(cls).get("added_later", ())}
        usual = {f.name: _plain(_default(f)) for f in fields(self) if f.name in added}  # type: ignore[arg-type]
        return {
            first.get(name, name): value
            for name, value in self.settings.items()
            if name not in leave_out and not (name in usual and value == usual[name])
        }

    @classmethod
    def old_names(cls) -> dict[str, str]:
        """Return old names of settings with the present ones, including those that base classes declare."""
        return declared_old_names(cls.__mro__, HasSettings)

    @classmethod
    def with_present_names(cls, given: Mapping[str, Any], *, quiet: bool = False) -> dict[str, Any]:
        """Return settings under their present names, with one warning about all old names that were used.

        Args:
            given: Settings under old or present names.
            quiet: Whether to suppress the warning.

        Raises:
            SettingsError: A setting is given under both names.
        """
        return translated(cls.name, cls.old_names(), given, quiet=quiet)

    @property
    def spec(self) -> str:
        """The text that builds this object again: what differs from the defaults, or from a preset if that is less."""
        beside = [([f"preset={name}"], values) for name, values in self.presets.items()]
        changed = min((said + self._unlike(values) for said, values in [([], {}), *beside]), key=len)
        return f"{self.name}({','.join(changed)})" if changed else self.name

    def _unlike(self, preset: Mapping[str, Any]) -> list[str]:
        """Return the settings that differ from a preset's, or from their defaults if it does not set them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]
        usual = {f.name: preset.get(f.name, _default(f)) for f in fields(self)}  # type: ignore[arg-type]
        return [f"{name}={_written(value)}" for name, value in values.items() if value != usual[name]]

    @classmethod
    def build(cls, /, **given: Any) -> Any:
        """Build an object from settings, which may include `preset`; unknown names and wrong values are refused.

        Raises:
            SettingsError: A setting or preset is unknown, or a value has the wrong type; the message suggests names.
        """
        preset = str(given.pop("preset", "default"))
        if preset != "default" and preset not in cls.presets:
            near = suggest(preset, [*cls.presets, "default"])
            raise SettingsError(f"{cls.name}: unknown preset {short(preset, SHOWN)!r}. {near}")
        values = {**cls.presets.get(preset, {}), **cls.with_present_names(given)}
        known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
        for key, value in values.items():
            if key not in known:
                near = suggest(key, [*known, "preset"])
                raise SettingsError(f"{cls.name}: unknown setting {short(key, SHOWN)!r}. {near}")
            if isinstance(value, str) and str(known[key].type).startswith("tuple[str, ...]"):
                values[key] = (value,)  # a single text of several: axes=Age
        try:
            return cls(**values)
        except ValueError as error:  # pydantic's ValidationError is one
            raise SettingsError(f"{cls.name}: {_readable(error)}") from error


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Turn a class into a frozen, validated, keyword-only dataclass; a docstring under a field documents it."""
    from pydantic import ConfigDict
    from pydantic.dataclasses import dataclass as validated

    if issubclass(cls, HasSettings):
        rename_overridden(cls, HasSettings)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    made = validated(frozen=True, kw_only=True, config=config)(cls)
    if issubclass(made, HasSettings):
        accept_old_names(made)
    return made  # type: ignore[return-value]


@old_fields(other="counter_stereotyped", after="suffix", topic="axis")
class Pair(NamedTuple):
    """Two texts that differ in what a stereotype is about: a stereotyped one and its counterpart."""

    stereotyped: str
    """The continuation, or the part of a sentence, that a stereotype makes more probable."""
    counter_stereotyped: str
    """Its counterpart."""
    prompt: str | Dialogue = ""
    """Text or dialogue before either side."""
    suffix: str = ""
    """Text that follows either side."""
    axis: str = ""
    """Dimension of social groups that the pair is about, as its source names it."""
    id: str = ""


@dataclass(frozen=True, slots=True)
class OverlapRemoved:
    """Number of units left out of training data because a benchmark asks them, by kind; None if not checked.

    All instances are equal, so that training data with the same content is equal whatever was left out before.
    """

    questions: int | None = field(default=None, compare=False)
    texts: int | None = field(default=None, compare=False)
    pairs: int | None = field(default=None, compare=False)


class TrainData(NamedTuple):
    """Data that a method may fit on; never the items on which it is scored."""

    questions: tuple[Question, ...] = ()
    answers: tuple[int | None, ...] = ()
    """Identity of the right option for each question, None where unlabelled."""
    texts: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    overlap_removed: OverlapRemoved = OverlapRemoved()
    """What a comparison has left out; for training records only, and not part of any key."""


class Method(HasSettings, ABC):
    """Turns a model into a model, and never changes the one it was given.

    Subclasses are decorated with `evenhand.interfaces.settings` and declare what they need of a model (`needs`).
    """

    needs: ClassVar[frozenset[Ability]] = frozenset()
    """Abilities without which the method cannot be applied."""
    needs_any: ClassVar[frozenset[Ability]] = frozenset()
    """Abilities of which the model must have at least one."""
    needs_data: ClassVar[bool] = False
    """Whether training data is required."""
    wording_setting: ClassVar[str] = ""
    """The setting that determines the wording of prompts, whose values `wordings=` lists; "" if there is none."""

    @property
    def seeded(self) -> bool:
        """Whether `seed` has any effect, so that `seeds=` repeats the method. Override if settings rule it out."""
        return any(f.name == "seed" and f.init for f in fields(self))  # type: ignore[arg-type]

    def own_texts(self) -> Sequence[str]:
        """Return texts that the method learns from besides its training data; () if there are none.

        A comparison warns about those that a benchmark asks.

        Raises:
            EvenhandError: The texts cannot be read.
        """
        return ()

    def reading(self, model: Model) -> Reading | None:
        """Return how final answers to multiple-choice questions are read; None leaves it to the question and the model.

        A comparison reads the baseline in the same way. A method that sets `answer_by` or `sampling` of the questions
        it asks must declare it here; setting them with `Reading.put` keeps the two in step.
        """
        return None

    def comparison_rows(self) -> dict[str, Method]:
        """Return the methods that get a row in a comparison: this one, under "", and others to be read with it.

        Controls are such others, named by what they change, as in "control=random". The default is only this method.
        """
        return {"": self}

    @abstractmethod
    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Return the mitigated model.

        Args:
            model: The model to mitigate; it is not changed.
            data: What a trained method may fit on; None for methods that need none.
        """

    def restore(self, model: Model, folder: Path) -> Model:
        """Return the mitigated model from what was learned, as `evenhand.models.Mitigated.save` wrote it.

        Args:
            model: The model that the method was applied to.
            folder: Written by the method's own function; methods that learn nothing are never asked.
        """
        raise NotImplementedError(f"{self.name} saves nothing that could be restored")

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return why this method cannot be applied to `model` with `data`, or "" if it can.

        A method that requires more than `needs`, `needs_any` and `needs_data` declare overrides this, and first returns
        the result of this one if that is not "". Problems of the model come before problems of the data.

        Args:
            model: The model to mitigate; None if it is not known yet, so that only the data are checked.
            data: What a trained method may fit on; None if there is nothing.
        """
        return self._unsupported_by(model) or self._untrainable_on(data)

    def _unsupported_by(self, model: Model | None) -> str:
        """Return what `needs` and `needs_any` find missing in a model."""
        if model is None:
            return ""
        if type(self).missing is not Method.missing and not is_asked(self, "missing"):
            warn_of_old_function(type(self), "missing")
            return self.missing(model)
        return self._missing_abilities(model)

    def _missing_abilities(self, model: Model) -> str:
        lacking = sorted(self.needs - model.abilities)
        if lacking:
            return f"{self.name} needs {', '.join(lacking)}; {model.name} has {', '.join(sorted(model.abilities))}"
        if self.needs_any and not self.needs_any & model.abilities:
            return f"{self.name} needs one of {', '.join(sorted(self.needs_any))}; {model.name} has none"
        return ""

    def _untrainable_on(self, data: TrainData | None) -> str:
        """Return what `needs_data` finds missing in training data."""
        if is_asked(self, "missing"):  # this concerns the model only
            return ""
        if type(self).untrained is not Method.untrained and not is_asked(self, "untrained"):
            warn_of_old_function(type(self), "untrained")
            return self.untrained(data)
        return self._missing_data(data)

    def _missing_data(self, data: TrainData | None) -> str:
        if self.needs_data and data is None:
            return f"{self.name} needs training data: train= of compare, --train on the command line, data= of apply"
        return ""

    def missing(self, model: Model) -> str:
        """Old name of `unsupported_reason`, for the model alone; it works for one release."""
        if type(self).missing is Method.missing:  # else it is `super().missing(model)` of an override
            warnings.warn(f"{self.name}: {OLD_FORMS['missing']}", DeprecationWarning, stacklevel=2)
        return reason_above(self, Method, "missing", model, None)

    def untrained(self, data: TrainData | None) -> str:
        """Old name of `unsupported_reason`, for the training data alone; it works for one release."""
        if type(self).untrained is Method.untrained:
            warnings.warn(f"{self.name}: {OLD_FORMS['untrained']}", DeprecationWarning, stacklevel=2)
        return reason_above(self, Method, "untrained", None, data)


@dataclass(frozen=True)
class Stack(Method):
    """Several methods on top of one another; the first is applied first and so is innermost."""

    parts: tuple[Method, ...]
    name: ClassVar[str] = "stack"

    @property
    def spec(self) -> str:
        """The specifications of the parts, joined by a plus."""
        return "+".join(part.spec for part in self.parts)

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Apply the parts in order."""
        for part in self.parts:
            if reason := part.unsupported_reason(model, data):
                only_data = reason == part.unsupported_reason(None, data)
                raise (SettingsError if only_data else MissingAbilityError)(reason)
            model = part.apply(model, data)
        return model

    @property
    def seeded(self) -> bool:
        """Whether any part's seed has an effect."""
        return any(part.seeded for part in self.parts)

    def own_texts(self) -> list[str]:
        """Return the texts of all parts."""
        return [text for part in self.parts for text in part.own_texts()]

    def comparison_rows(self) -> dict[str, Method]:
        """Return the stack, and for each further row of a part the stack with that row in the part's place."""
        each = [part.comparison_rows() for part in self.parts]
        own = tuple(rows[""] for rows in each)
        found: dict[str, Method] = {"": self if own == self.parts else Stack(own)}
        names = [part.name for part in own]
        for n, (name, rows) in enumerate(zip(names, each, strict=True)):
            place = name if names.count(name) == 1 else f"{name} {n + 1}"
            for label in filter(None, rows):
                found[f"{place}.{label}"] = Stack((*own[:n], rows[label], *own[n + 1 :]))
        return found

    def reading(self, model: Model) -> Reading | None:
        """Combine the readings of the parts."""
        found = stacked(part.reading(model) for part in self.parts)
        return None if found == OPEN else found

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return the first part's reason; later parts see a model that does not exist yet, and check only the data."""
        reasons = (part.unsupported_reason(None if n else model, data) for n, part in enumerate(self.parts))
        return next((reason for reason in reasons if reason), "")


# ---------------------------------------------------------------------------------------------- the benchmark


class Item(Protocol):
    """One unit of a benchmark. Items of one cluster are not independent and are resampled together."""

    @property
    def id(self) -> str:
        """Id that is unique within the benchmark and the same in every run."""

    @property
    def cluster(self) -> str:
        """What it shares with items that are not independent of it: template, subject, descriptor."""


@runtime_checkable
class QuestionItem(Item, Protocol):
    """An item that is one multiple-choice question, so that methods can be trained on it."""

    @property
    def question(self) -> Question:
        """The question as it is asked."""


Form = Literal["smooth", "proportion", "resampled"]
"""How the uncertainty of a metric is computed (`evenhand.statistics`): by the jackknife, by the jackknife with exact
binomial bounds near 0 and 1, or by resampling."""


Direction = Literal["lower", "higher", "zero", "none"]
"""Which way a metric is better; "zero" is nearer zero, "none" is neither."""
MetricKind = Literal["bias", "capability", "cost", "validity", "change"]


class Metric(NamedTuple):
    """Definition of a number."""

    name: str
    direction: Direction
    """Which way is better; "zero" is nearer zero, "none" is neither."""
    kind: MetricKind
    about: str
    """One sentence: the definition and its range."""
    main: bool = False
    """Whether it is in the short table."""
    form: Form = "smooth"
    """smooth: a differentiable function of the sums, such as a ratio, mean difference or correlation. proportion: the
    share of items that have some property, so `value * n` is a count (or a sum of numbers from 0 to 1). resampled:
    anything else, such as a maximum, a sum of absolute values, or a share of significant tests."""
    range: tuple[float, float] = (-inf, inf)
    """Smallest and largest possible value of the metric; intervals are clipped to it."""
    part: str | None = None
    """For a share of right answers, the part of the grades that it counts ("" if there is one part only), so that
    answers turned from right to wrong are counted item by item. None for every other metric."""


class Grade(NamedTuple):
    """Whether an answer is right, so that two models' answers to the same item can be compared."""

    decision: int | str | None
    """What was chosen; None if nothing was (unparsed, unanswered): such an answer is neither right nor wrong."""
    right: bool
    groups: tuple[str, ...] = ("overall",)
    """Groups of the tally that the item belongs to."""
    part: str = ""
    """Kind of item, such as "ambiguous", if a change has another meaning in each; parts are counted separately."""
    counted: bool = True
    """Whether the part's share of right answers counts this one; False if it excludes what could not be read."""


class Measured(NamedTuple):
    """Values of one metric and the number of answers they are based on; both have the same shape."""

    value: Array
    n: Array


@dataclass(frozen=True)
class Tally:
    """Sufficient statistics: everything that a benchmark's metrics need of the answers, summed per cluster."""

    clusters: tuple[str, ...]
    """C cluster names."""
    strata: tuple[str, ...]
    """C stratum names: clusters are resampled within their stratum, so that every group keeps its size."""
    groups: tuple[str, ...]
    """G group names (category, subject ...), "overall" among them."""
    sums: Array = field(repr=False)
    """[C, G, S] sums of S statistics; zeros for a cluster that is not in a group."""

    @cached_property
    def total(self) -> Array:
        """[G, S] sums over all clusters."""
        found: Array = self.sums.sum(axis=0)
        return found


ItemT = TypeVar("ItemT", default=Any)
"""Type of a benchmark's items (`Item`s)."""
AnswerT = TypeVar("AnswerT", default=Any)
"""Type of a benchmark's answers."""


class Benchmark(HasSettings, ABC, Generic[ItemT, AnswerT]):
    """Turns a model into scores: `load` the items, `ask` a model, then pure functions without model or I/O.

    Subclasses are decorated with `evenhand.interfaces.settings`, and declare the types of their items and answers:
    `class Coin(Benchmark[Toss, Choice])`. A plain `Benchmark` works on items and answers of any type. Where metrics are
    functions of numbers that are added up over answers, `evenhand.evaluation.RowBenchmark` gives `tally` and `compute`.
    """

    needs: ClassVar[frozenset[Ability]]
    """Abilities without which a model cannot be asked."""
    metrics: ClassVar[tuple[Metric, ...]]
    """Definition of each number that `compute` returns."""
    metrics_info: ClassVar[Any] = OldInfo()
    """Old name of `metrics`; it works for one release."""
    answer_type: ClassVar[type] = Choice
    """Dataclass of one answer, in which it is stored and read back: JSON values, tuples and dataclasses."""
    quotable: ClassVar[bool] = True
    """Whether the items' texts may be shown and written; False for sets that must not be published."""
    evaluation_only: ClassVar[str] = ""
    """Why no method may be trained on the items or pairs, such as a clause of the licence; "" if nothing forbids it. A
    comparison refuses such a benchmark as training data, whichever benchmark asks its items."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Accept the previous names of a benchmark's parts, which work for one release."""
        super().__init_subclass__(**more)
        rename_old_parts(cls, Benchmark)

    @abstractmethod
    def load(self) -> Sequence[ItemT]:
        """Read the items (`Item`s); the same list in every run."""

    @abstractmethod
    def ask(self, model: Model, items: Sequence[ItemT]) -> list[AnswerT]:
        """Ask the model all items at once; return one answer per item, of type `answer_type`."""

    @abstractmethod
    def tally(self, items: Sequence[ItemT], answers: Sequence[AnswerT]) -> Tally:
        """Reduce the answers to sums per cluster. Pure."""

    @abstractmethod
    def compute(self, sums: Array) -> dict[str, Measured]:
        """Turn summed statistics [..., S] into named numbers [...]. Pure, vectorised over leading dimensions."""

    def grades(self, items: Sequence[ItemT], answers: Sequence[AnswerT]) -> Sequence[Grade] | None:
        """Return which answers are right, one `Grade` per item; None if nothing is right or wrong. Pure.

        Comparisons use it to count what a method turned from wrong to right, and from right to wrong.
        """
        return None

    def marks(self, items: Sequence[ItemT], answers: Sequence[AnswerT]) -> Sequence[Grade] | None:
        """Old name of `grades`; it works for one release."""
        warn(self.name, {"marks()": "grades()"})
        return Benchmark.grades(self, items, answers)  # a class that defines grades also has its own marks

    def gold(self, items: Sequence[ItemT]) -> Sequence[int | None] | None:
        """Return the index of each item's right option, None for an item without one; None if no item has one. Pure.

        It makes the questions of a benchmark whose items are `QuestionItem`s usable as labelled training data.
        """
        return _gold_by_grades(self, items)

    def pairs(self, items: Sequence[ItemT]) -> Sequence[Pair] | None:
        """Return the contrast pairs in the items, any number per item; None if the benchmark has no pairs. Pure.

        It makes "pairs:NAME" a source of training data. Whether there are pairs must not depend on the items, so
        that `pairs([])` shows it.

        Raises:
            SettingsError: The authors of this data ask that nobody trains on it.
        """
        return None

    def stratum(self, item: ItemT) -> str:
        """Return the part of the benchmark that an item belongs to, such as its subject; "" by default. Pure.

        If `limit` leaves out items, every stratum keeps its share of the rest.
        """
        return ""

    @property
    def sampling(self) -> Sampling | None:
        """How the benchmark samples replies; None if its questions or the model determine it."""
        return None

    @property
    def original(self) -> Benchmark:
        """Return the benchmark that the items are taken from: itself, unless it asks another one's items differently.

        The items of both have the same clusters.
        """
        return self

    def facts(self) -> dict[str, Any]:
        """Return facts for reports: where the data came from, its hashes, what was dropped. JSON values only."""
        return {"name": self.name, "settings": self.settings}

    def items(self) -> Sequence[ItemT]:
        """Old name of `load`; it works for one release."""
        warnings.warn(f"{self.name}: items() is now load()", DeprecationWarning, stacklevel=2)
        return self.load()


def _gold_by_grades(benchmark: Benchmark, items: Sequence[Any]) -> Sequence[int | None] | None:
    """Find the right options by grading every possible answer, for a class that does not define `gold` yet.

    Raises:
        SettingsError: An item has several right options, or a class overrides the grades of one that defines `gold`, so
            that they cannot be used any more.
    """
    cls = type(benchmark)
    if cls.grades is Benchmark.grades:
        return None
    if cls.answer_type is not Choice:
        if any("gold" in vars(base) and vars(base)["gold"] is not Benchmark.gold for base in cls.__mro__):
            raise SettingsError(f"{benchmark.name}: {cls.__name__} changes grades(), so it must define gold() as well")
        return None
    if not all(isinstance(item, QuestionItem) for item in items):
        return None
    warn_of_old_form(cls, "right options are now what gold() returns, and are no longer derived from grades()")
    found: list[int | None] = []
    for item in items:
        options = [Choice(option) for option in range(len(item.question.options))]
        right = [n for n, m in enumerate(benchmark.grades([item] * len(options), options) or ()) if m.right]
        if len(right) > 1:
            raise SettingsError(f"{benchmark.name}: {item.id} has {len(right)} right options; at most one can be right")
        found.append(right[0] if right else None)
    return found


def _default(f: Any) -> Any:
    if f.default_factory is not None and callable(f.default_factory):
        try:
            return f.default_factory()
        except TypeError:
            return None
    return getattr(f.default, "default", f.default)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list | frozenset | set):
        return [_plain(v) for v in (sorted(value) if isinstance(value, frozenset | set) else value)]
    return str(value) if isinstance(value, Path) else value


def _written(value: Any) -> str:
    """Format a value as `evenhand.core.specs` reads it."""
    if isinstance(value, Path | frozenset | set):
        value = _plain(value)
    if not isinstance(value, str):
        return repr(value)
    bare = value.isascii() and value.isidentifier() and not keyword.iskeyword(value)  # None, True are keywords
    return value if bare else repr(value)


def _readable(error: ValueError) -> str:
    details: Callable[[], list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if details is None:
        return str(error)
    return "; ".join(
        f"{short('.'.join(map(str, d['loc'])), SHOWN) or 'settings'}={short(repr(d.get('input')), SHOWN)}: {d['msg']}"
        for d in details()
    )


if TYPE_CHECKING:
    Array = NDArray[np.float64]
    Mark = Grade
else:

    def __getattr__(name: str) -> Any:
        """Return `Array`, importing numpy on first use, or an old name, which works for one release."""
        if name == "Array":
            from numpy import float64
            from numpy.typing import NDArray

            return globals().setdefault("Array", NDArray[float64])
        if name == "Mark":
            warn("evenhand", {"Mark": "Grade"})
            return Grade
        if name == "Answers":
            message = "Answers is now Sequence[Any]; the old name works for one release"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return Sequence[Any]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
