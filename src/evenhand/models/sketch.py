"""A model without weights, for estimating the cost of a run: only its configuration and tokenizer are real.

A `SketchedModel` writes and tokenises every prompt as the model itself would. Its engine
returns -1 for every log-probability, and replies of one letter that count as the full number of tokens. `spent` is thus
what the model would spend, with replies at their limit. If there is no tokenizer, or the model is not in this
process, a `RoughModel` counts four characters as one token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from evenhand.core.hashing import digest
from evenhand.errors import EvenhandError
from evenhand.inference import Generated, Prompt, Request
from evenhand.interfaces import (
    UNLIMITED,
    Ability,
    Choice,
    Combine,
    Dialogue,
    Model,
    Passage,
    Question,
    Reply,
    Sampling,
    Score,
    Usage,
)
from evenhand.models import demo_names, hugging_face, saved
from evenhand.models.loading import Found, asking_options, resolve
from evenhand.models.token_model import TokenModel
from evenhand.prompting import rendering

T = TypeVar("T")
CHARACTERS_PER_TOKEN = 4
"""Approximate characters per token of English text in a byte-pair vocabulary, used without a tokenizer."""
UNSCORED = -1.0
"""Log-probability that is returned for everything."""
REPLY = "A"
"""Text of every reply: a letter, so that it can be read as an answer."""


@dataclass(frozen=True)
class Sketch:
    """What is known of a model without its weights."""

    model: SketchedModel | RoughModel
    """Model to ask in its place."""
    parameters: float | None
    """Number of parameters; None if unknown."""
    dtype: str
    """Precision that it would be opened in; "" if it is not opened in this process."""
    exact: bool
    """Whether tokens are counted with the model's own tokenizer."""
    on_cpu: bool = False
    """Whether it needs no GPU: its options place it in main memory, or it runs elsewhere."""
    notes: tuple[str, ...] = field(default=())
    """What could not be determined, and what is assumed instead."""


def sketch(spec: str | Path | Model, **options: Any) -> Sketch:
    """Determine what a model's configuration and tokenizer tell about it; no weights are opened.

    Args:
        spec: Specification as for `evenhand.load`.
        **options: Options as for `evenhand.load`.

    Raises:
        SettingsError: The specification or an option cannot be used.
    """
    if isinstance(spec, Model):
        return Sketch(
            RoughModel(spec.name, spec.abilities), None, "", False, notes=("it is an object: tokens are estimated",)
        )
    found = resolve(spec, options)
    name = str(found.options.get("name") or (found.name if found.kind == "scheme" else Path(found.name).name))
    source = _source(found)
    if source is None:
        why = "it has a loader of its own, or is a saved method: tokens are estimated, and its size is not known"
        return Sketch(RoughModel(name), None, "", False, on_cpu=found.kind == "scheme", notes=(why,))
    try:
        return _of_source(source, name, found.options)
    except EvenhandError as error:
        why = f"its configuration is not available ({error}): tokens are estimated, and its size is not known"
        return Sketch(RoughModel(name), None, "", False, notes=(why,))


def _source(found: Found) -> str | None:
    """Return the folder or hub name with the configuration; None if there is none."""
    if found.kind == "scheme":
        return demo_names.located(found.name) if found.name in demo_names.NAMES else None
    if found.kind == "folder":
        folder = Path(found.name)
        if (folder / "adapter_config.json").is_file():
            return demo_names.located(found.base) if found.base else saved.base_of_adapter(folder)
        return found.name if saved.holds_weights(folder) else None
    return found.name


def _of_source(source: str, name: str, options: dict[str, Any]) -> Sketch:
    from evenhand.models import architecture

    reading: dict[str, Any] = {k: options[k] for k in ("revision", "trust_remote_code") if options.get(k)}
    config = hugging_face.config_of(source, **reading)
    kind = architecture.kind_of(config, source)
    parameters, dtype = _parameters(config, kind), _precision(config, options)
    on_cpu = str(options.get("device") or "").startswith("cpu")
    unknown = () if parameters else ("its size is not known: transformers cannot lay it out without weights",)
    try:
        tokenizer = hugging_face.open_tokenizer(source, **reading)
    except EvenhandError as error:
        why = f"its tokenizer is not available ({error}): tokens are estimated"
        return Sketch(RoughModel(name, _ABILITIES[kind]), parameters, dtype, False, on_cpu, (why, *unknown))
    if kind != "causal":
        rough = RoughModel(name, _ABILITIES[kind], lambda text: len(tokenizer(text)["input_ids"]))
        return Sketch(rough, parameters, dtype, False, on_cpu, ("prompts are counted without its template", *unknown))
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    asking = {k: v for k, v in asking_options(options).items() if k not in ("name", "batch_tokens")}
    limit = int(stated) if stated else UNLIMITED
    return Sketch(SketchedModel(tokenizer, limit, name=name, **asking), parameters, dtype, True, on_cpu, unknown)


_ABILITIES: dict[str, frozenset[Ability]] = {
    "causal": frozenset({"choose", "generate", "score", "weights"}),
    "masked": frozenset({"score", "weights"}),
    "seq2seq": frozenset({"choose", "generate", "score"}),
}


def _parameters(config: Any, kind: str) -> float | None:
    """Count the parameters of the module on torch's meta device, where tensors take no memory."""
    import torch
    import transformers

    opener: Any = getattr(transformers, hugging_face.OPENERS[kind])  # type: ignore[index]
    try:
        with torch.device("meta"):
            module = opener.from_config(config)
    except Exception:  # raised by transformers or by a model's own code
        return None
    return float(sum(p.numel() for p in module.parameters()))


def _precision(config: Any, options: dict[str, Any]) -> str:
    """Return the precision in which `evenhand.load` would open the weights."""
    import torch

    asked = options.get("dtype")
    if asked not in (None, "auto"):
        return str(asked).removeprefix("torch.")
    device = str(options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return "float32" if asked is None and device == "cpu" else own


class _Spending:
    """Adds up the cost of asking a sketch; nested calls made while answering are not counted twice."""

    def __init__(self) -> None:
        self.total = Usage()
        self._inside = False

    def of(self, ask: Callable[[], T], cost: Callable[[T], Usage]) -> T:
        """Ask and return the result; its cost is added unless this call is nested in another."""
        if self._inside:
            return ask()
        self._inside = True
        try:
            found = ask()
        finally:
            self._inside = False
        self.total += cost(found)
        return found


def _usage(answers: Sequence[Choice | Reply]) -> Usage:
    return Usage.total(answer.usage for answer in answers)


class _NoEngine:
    """An engine that answers every request immediately with placeholders."""

    def __init__(self) -> None:
        self.fed = 0
        """Number of tokens read so far."""
        self.asked: set[int] = set()
        """Hashes of what was asked since the set was last emptied; valid in this process only."""

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """Return the same log-probability for every read."""
        self.fed += sum(len(request.ids) for request in requests)
        self.asked.update(map(hash, requests))
        return [(UNSCORED,) * len(request.reads) for request in requests]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str) -> list[Generated]:
        """Return replies of one letter that count as many tokens as the limit."""
        self.asked.update(hash((prompt, sampling)) for prompt in prompts)
        return [Generated((0,) * sampling.max_new_tokens, REPLY, True) for _ in prompts]


class SketchedModel(TokenModel):
    """A causal language model without weights; see the module."""

    engine: _NoEngine

    def __init__(self, tokenizer: Any, context_length: int, *, name: str, **asking: Any) -> None:
        """Make a sketch from a tokenizer.

        Args:
            tokenizer: Tokenizer of the model.
            context_length: Maximum number of tokens of a prompt and its continuation.
            name: Label for tables.
            **asking: Options of `TokenModel` that concern asking. Items that are too long stay unanswered.
        """
        super().__init__(tokenizer, _NoEngine(), name=name, **{**asking, "too_long": "skip"})
        self._context_length, self._spending = context_length, _Spending()

    @property
    def spent(self) -> Usage:
        """Requests and tokens so far."""
        return self._spending.total

    def requests(self) -> frozenset[int]:
        """Return what was asked since the last call, as hashes that are valid in this process only."""
        asked, self.engine.asked = frozenset(self.engine.asked), set()
        return asked

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Ask questions as the model would; the answers are placeholders."""
        ask = super().choose
        return self._spending.of(lambda: ask(questions), _usage)

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Return replies of one letter that count as many tokens as the limit."""
        ask = super().generate
        return self._spending.of(lambda: ask(dialogues, sampling), _usage)

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Return the same log-probability for every token."""
        before = self.engine.fed
        ask = super().score
        return self._spending.of(lambda: ask(passages), lambda scores: Usage(len(scores), self.engine.fed - before))

    @property
    def abilities(self) -> frozenset[Ability]:
        """Abilities of the model, "weights" included, so that methods that need weights can be planned."""
        return _ABILITIES["causal"]

    @property
    def context_length(self) -> int:  # type: ignore[override]  # derived, so it cannot be set
        """Maximum number of tokens of a prompt and its continuation, as the configuration states it."""
        return self._context_length

    @property
    def fingerprint(self) -> str:
        """Hash of the name alone: there is no content to hash."""
        return digest("sketch", self.name)

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> Model:
        """Return the same model: an answer's `Usage` does not include the cost of prefixes either."""
        return self

    def save(self, folder: str | Path) -> Path:
        """Refuse to save: there are no weights."""
        raise EvenhandError(f"{self.name} is a sketch without weights, which cannot be saved; load the model first")


class RoughModel(Model):
    """A model of which only the abilities are known; see the module."""

    def __init__(
        self,
        name: str,
        abilities: frozenset[Ability] = _ABILITIES["seq2seq"],
        count: Callable[[str], int] = lambda text: -(-len(text) // CHARACTERS_PER_TOKEN),
    ) -> None:
        """Make a sketch without a tokenizer.

        Args:
            name: Label for tables.
            abilities: Abilities of the model.
            count: Estimates the number of tokens of a text.
        """
        self.name, self._abilities, self._count = name, abilities, count
        self.spent = Usage()
        """Requests and tokens so far."""

    def requests(self) -> frozenset[int]:
        """Return the empty set: the exact requests are unknown."""
        return frozenset()

    @property
    def abilities(self) -> frozenset[Ability]:
        """Abilities as passed in."""
        return self._abilities

    @property
    def fingerprint(self) -> str:
        """Hash of the name alone."""
        return digest("rough sketch", self.name)

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Choose the first option, at the cost of reading the prompt and, for a written answer, its full length."""
        out = []
        for q in questions:
            way = q.answer_by or "letters"
            prompt = self._length(rendering.as_dialogue(q, way))
            new = q.sampling.max_new_tokens if way == "generation" and q.sampling else 0
            out.append(Choice(0, usage=Usage(1, prompt, new)))
        self.spent += _usage(out)
        return out

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Return replies of one letter that count as many tokens as the limit."""
        out = [Reply(REPLY, Usage(1, self._length(d), sampling.max_new_tokens)) for d in dialogues]
        self.spent += _usage(out)
        return out

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Return the same log-probability for every text."""
        own = [max(1, self._count(p.continuation)) for p in passages]
        read = sum(own) + sum(self._length(p.prompt) for p in passages)
        self.spent += Usage(len(own), read)
        return [Score(UNSCORED, tokens) for tokens in own]

    def save(self, folder: str | Path) -> Path:
        """Refuse to save: there are no weights."""
        raise EvenhandError(f"{self.name} is a sketch without weights, which cannot be saved; load the model first")

    def _length(self, prompt: str | Dialogue) -> int:
        parts = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt.messages]
        return sum(self._count(part) for part in parts)
