"""`preference`: the other side of each pair is preferred to the stereotyped one, by direct preference optimisation.

Source: Rafailov et al. 2023, "Direct Preference Optimization" (arXiv 2305.18290); as a baseline of unlearning Dige et
al. 2024 (arXiv 2406.13551; code VectorInstitute/bias-mitigation-unlearning), whose settings `paper` has. Training is
TRL's (`pip install 'evenhand[trl]'`).
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from evenhand.core.artifacts import made_with
from evenhand.core.hashing import digest
from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Model, Pair, TrainData, TrainedOn, TrainingRecord, settings
from evenhand.training.trained_method import Fitted, TrainedMethod

if TYPE_CHECKING:
    from evenhand.training.lora import Adapter
    from evenhand.training.trl import Recipe

LEAST_PAIRS = 20
"""Fewer different pairs teach nothing, and say nothing of what was taught."""


class Lesson(NamedTuple):
    """Pairs in tokens, as `evenhand.methods.unlearning._dpo.rows` makes them."""

    train: list[Any]
    held: list[Any]
    left_out: dict[str, int]
    """By reason how many pairs could not be used."""


@settings
class Preference(TrainedMethod):
    """Train a model to prefer the other side of each pair to the stereotyped one (DPO)."""

    not_in_key: ClassVar[frozenset[str]] = frozenset({"axes", "max_pairs"})
    name: ClassVar[str] = "preference"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"steps": 200, "dropout": 0.05, "targets": "attention", "warmup_ratio": 0.5},
    }
    added_later: ClassVar[frozenset[str]] = frozenset({"weight_decay", "max_grad_norm"})
    renamed: ClassVar[Mapping[str, str]] = {
        "most_pairs": "max_pairs",
        "warm_up": "warmup_ratio",
        "accumulate": "gradient_accumulation_steps",
        "held_out": "validation_fraction",
        "topics": "axes",
    }

    axes: tuple[str, ...] = ()
    """Axes (dimensions of social groups) whose pairs in the training data are learned; empty takes all pairs."""
    max_pairs: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of pairs, of which the first are taken; None takes all."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How dear it is to leave the untouched model."""
    rank: Annotated[int, Field(gt=0)] = 16
    """Of the LoRA adapter."""
    alpha: Annotated[int, Field(gt=0)] = 16
    """The adapter counts alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """In the adapter."""
    targets: Literal["all", "attention"] = "all"
    """Layers with an adapter: all linear ones, or queries and values alone (what peft takes for the paper's models)."""
    epochs: Annotated[int, Field(gt=0)] = 3
    """Passes over the pairs."""
    steps: Annotated[int, Field(gt=0)] | None = None
    """The same in steps, instead of `epochs`."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak of AdamW; it falls along a cosine."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the steps in which the learning rate rises. The paper's code: 100 of 200 steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Fraction, times the learning rate, by which AdamW shrinks the weights in a step."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient of a step; larger gradients are scaled down to it."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Pairs a step."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 1
    """Number of parts in which a step's batch is computed; it has to divide `batch_size`."""
    max_length: Annotated[int, Field(gt=3)] = 1024
    """Most tokens of a prompt and one side; longer pairs are left out."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Of the products."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the pairs held out, on which each epoch is reported; the last epoch is taken. 0 trains on all
    pairs."""
    seed: int = 0
    """Of held-out pairs, new weights and the order of batches."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        if self.batch_size % self.gradient_accumulation_steps:
            raise SettingsError(
                f"batch_size={self.batch_size} is not divisible by "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}"
            )

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """TRL has to be installed, the model to be here, causal and not quantised, and there have to be pairs."""
        from evenhand.training import trainable
        from evenhand.training import trl as through_trl

        reason = super().unsupported_reason(model, data)
        if model is not None:
            reason = reason or through_trl.unsupported_reason(self.name)
        reason = reason or trainable.unsupported_reason(self.name, model, masked=False)
        if reason or (data is not None and data.pairs):
            return reason
        return (
            f"{self.name} needs pairs of a stereotyped and another text: training data with pairs (train= of compare, "
            "--train on the command line, data= of apply)"
        )

    def prepared(self, model: Model, data: TrainData) -> Lesson:
        """The pairs in tokens.

        Raises:
            SettingsError: There are too few.
        """
        return Lesson(*self._rows(model, self._own(data.pairs)))

    def content(self, prepared: Lesson) -> Sequence[object]:
        """The pairs; what was left out decides nothing, but is written down beside the weights."""
        return [prepared.train, prepared.held, *([prepared.left_out] if prepared.left_out else [])]

    def made_with(self, model: Model, prepared: Lesson) -> list[str | int]:
        """On the model's device."""
        return made_with(model, precision=self.precision)

    def opened(self, model: Model, folder: Path) -> Model:
        """The adapter, on the base that it names."""
        from evenhand.methods.unlearning._result import open_edited

        return open_edited(folder, model, f"{model.name}+{self.spec}", remedy=self.remedy)

    @property
    def remedy(self) -> str:
        """A lower learning rate."""
        return f"take a learning_rate below {self.learning_rate:g}"

    def _own(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        own = [p for p in pairs if not self.axes or p.axis in self.axes][: self.max_pairs]
        if not own:
            known = ", ".join(sorted({p.axis for p in pairs}))
            raise SettingsError(f"no pairs about {', '.join(self.axes)}; the training data has: {known}")
        return own

    def _rows(self, model: Model, pairs: Sequence[Pair]) -> tuple[list[Any], list[Any], dict[str, int]]:
        """Pairs in tokens, to train on and held out, equal ones once; and by reason how many were left out."""
        from evenhand.methods.unlearning._dpo import read_pairs
        from evenhand.training.holding_out import hold_out

        length = min(self.max_length, model.context_length)
        found = read_pairs(pairs, model.weights.tokenizer, length)
        once = list({repr(row): row for row in found.rows}.values())
        lost = _lost(found.left_out)
        if len(once) < LEAST_PAIRS:
            repeated = len(found.rows) - len(once)
            why = [f"{repeated} repeated"] * bool(repeated) + lost
            raise SettingsError(
                f"{self.name} needs at least {LEAST_PAIRS} different pairs of at most {length} tokens, not {len(once)}"
                + (f": of {len(pairs)} pairs, {', '.join(why)}" if why else "")
            )
        if lost:
            count = len(pairs) - len(found.rows)
            warnings.warn(f"{self.name}: of {len(pairs)} pairs, {count} are not used: {', '.join(lost)}", stacklevel=3)
        train, held = hold_out(once, _texts_of, self.validation_fraction, self.seed)
        return train, held, {reason: len(names) for reason, names in found.left_out.items()}

    def train(self, model: Model, prepared: Lesson, folder: Path) -> Fitted:
        """Train an adapter on the pairs."""
        from evenhand.methods.unlearning._dpo import optimise
        from evenhand.methods.unlearning._negation import plain

        module, tokenizer = model.weights
        train, held, left_out = prepared
        tuned, found = optimise(plain(module), tokenizer, train, held, *self._plan(module), folder)
        content = TrainedOn(unit="pairs", training=len(train), validation=len(held), hash=digest(train, held))
        epochs = self.epochs if self.steps is None else None
        results = {"left_out": left_out}
        known = {"data": content, "precision": self.precision, "epochs": epochs, "results": results, **found}
        return Fitted(tuned, known)

    def keep(self, model: Model, made: Fitted, record: TrainingRecord, folder: Path) -> None:
        """Save the adapter, its base with it where no name holds the same weights, and last the record."""
        from evenhand.models.adapters import forget_name

        if model.unedited_source is None or hasattr(model.weights.module, "peft_config"):
            forget_name(made.module)
        super().keep(model, made, record, folder)

    def clean(self, folder: Path) -> None:
        """Remove TRL's checkpoints."""
        from evenhand.methods.unlearning._dpo import PLACE

        shutil.rmtree(folder / PLACE)

    def _plan(self, module: Any) -> tuple[Recipe, Adapter]:
        """How it is trained, and what."""
        from evenhand.training.lora import Adapter
        from evenhand.training.trl import Recipe

        recipe = Recipe(
            objective="dpo",
            epochs=self.epochs,
            steps=self.steps,
            learning_rate=self.learning_rate,
            decay="cosine",
            warmup=self.warmup_ratio,
            batch_size=self.batch_size // self.gradient_accumulation_steps,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            beta=self.beta,
            precision=self.precision,
            seed=self.seed,
            cpu=module.device.type == "cpu",
        )
        return recipe, Adapter(self.rank, self.alpha, self.dropout, targets=self.targets)


def _texts_of(row: Mapping[str, list[int]]) -> list[tuple[int, ...]]:
    """Both texts of a pair, for `hold_out`."""
    return [tuple(row["prompt_ids"] + row[side]) for side in ("chosen_ids", "rejected_ids")]


def _lost(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """Per reason one phrase, with the name of the first pair."""
    return [f"{len(names)} with {why} (such as {names[0]})" for why, names in left_out.items()]
