"""`preference`: the other side of each pair is preferred to the stereotyped one, by direct preference optimisation.

Source: Rafailov et al. 2023, "Direct Preference Optimization" (arXiv 2305.18290); as a baseline of unlearning Dige et
al. 2024 (arXiv 2406.13551; code VectorInstitute/bias-mitigation-unlearning), whose settings `paper` has. Training is
TRL's (`pip install 'evenhand[trl]'`).
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import artefact, made_with
from evenhand.core.hashing import digest
from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Method, Model, Pair, TrainData, settings

if TYPE_CHECKING:
    from evenhand.methods.unlearning._dpo import Plan

LEAST_PAIRS = 20
"""Fewer different pairs teach nothing, and say nothing of what was taught."""
VERSION = 1
"""Of what a training does; part of the name that an adapter is kept under."""


@settings
class Preference(Method):
    """Train a model to prefer the other side of each pair to the stereotyped one (DPO)."""

    name: ClassVar[str] = "preference"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"steps": 200, "dropout": 0.05, "targets": "attention", "warm_up": 0.5},
    }

    topics: tuple[str, ...] = ()
    """Of the training data's pairs, learn those about these axes alone. Empty: all."""
    most_pairs: Annotated[int, Field(gt=0)] | None = None
    """How many pairs at most, the first ones; None takes all."""
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
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which the learning rate rises. The paper's code: 100 of 200 steps."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Pairs a step."""
    accumulate: Annotated[int, Field(gt=0)] = 1
    """Parts that a step is computed in; divides batch_size."""
    max_length: Annotated[int, Field(gt=3)] = 1024
    """Most tokens of a prompt and one side; longer pairs are left out."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Of the products."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the pairs that each epoch is reported on."""
    seed: int = 0
    """Of held-out pairs, new weights and the order of batches."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        if self.batch_size % self.accumulate:
            raise SettingsError(f"batch_size={self.batch_size} is not to be had in accumulate={self.accumulate} parts")

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

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Train an adapter on the pairs, or find the one that was trained before; the given model stays as it is.

        Raises:
            SettingsError: No pairs, or too few; a model that cannot be trained; TRL is not installed.
        """
        from evenhand.methods.unlearning._result import open_edited

        reason = self.unsupported_reason(model, data)
        if reason or data is None:
            raise SettingsError(reason)
        train, held, left_out = self._rows(model, self._own(data.pairs))
        decisive = {key: value for key, value in self.settings.items() if key not in ("topics", "most_pairs")}
        how = made_with(model, precision=self.precision)
        # what was left out decides nothing, but is written down beside the weights
        written = [left_out] if left_out else []
        key = digest(self.name, VERSION, how, model.fingerprint, decisive, train, held, *written)
        with artefact(key, lambda folder: self._train(model, train, held, left_out, folder)) as folder:
            remedy = f"take a learning_rate below {self.learning_rate:g}"
            return open_edited(folder, model, f"{model.name}+{self.spec}", remedy=remedy)

    def _own(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        own = [p for p in pairs if not self.topics or p.topic in self.topics][: self.most_pairs]
        if not own:
            known = ", ".join(sorted({p.topic for p in pairs}))
            raise SettingsError(f"no pairs about {', '.join(self.topics)}; the training data has: {known}")
        return own

    def _rows(self, model: Model, pairs: Sequence[Pair]) -> tuple[list[Any], list[Any], dict[str, int]]:
        """Pairs in tokens, to train on and held out, equal ones once; and by reason how many were left out."""
        from evenhand.methods.unlearning._dpo import read_pairs

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
        Random(f"held out {self.seed}").shuffle(once)
        count = max(1, round(self.held_out * len(once)))
        return once[count:], once[:count], {reason: len(names) for reason, names in found.left_out.items()}

    def _train(self, model: Model, train: list[Any], held: list[Any], left_out: dict[str, int], folder: Path) -> None:
        from evenhand.methods.unlearning._dpo import PLACE, optimise
        from evenhand.methods.unlearning._negation import plain
        from evenhand.methods.unlearning._result import FACTS
        from evenhand.models.hugging_face import save_module
        from evenhand.training.lora import forget_name

        module, tokenizer = model.weights
        tuned, facts = optimise(plain(module), tokenizer, train, held, self._plan(module), folder)
        if model.unedited_source is None or hasattr(module, "peft_config"):
            forget_name(tuned)
        save_module(tuned, folder)
        tokenizer.save_pretrained(folder)
        counts = {"pairs": len(train), "held_out_pairs": len(held), "left_out": left_out}
        told = {"method": self.spec, **counts, **facts}
        (folder / FACTS).write_text(json.dumps(told, indent=1))
        shutil.rmtree(folder / PLACE)  # checkpoints; they were for going on

    def _plan(self, module: Any) -> Plan:
        from evenhand.methods.unlearning._dpo import Plan
        from evenhand.methods.unlearning._fine_tuning import Adapter

        adapter = Adapter(self.rank, self.alpha, self.dropout, False, self.targets, False)
        return Plan(
            self.beta, adapter, self.epochs, self.steps, self.learning_rate, self.warm_up,
            self.batch_size // self.accumulate, self.accumulate, self.precision, self.seed,
            module.device.type == "cpu",
        )  # fmt: skip


def _lost(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """Per reason one phrase, with the name of the first pair."""
    return [f"{len(names)} with {why} (such as {names[0]})" for why, names in left_out.items()]
