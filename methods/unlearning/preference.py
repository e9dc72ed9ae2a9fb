"""`preference`: the old name of `pairwise(preset=dpo,stop=none)`; it works for one release, with a warning.

Source: Rafailov et al. 2023, "Direct Preference Optimization" (arXiv 2305.18290); as a baseline of unlearning Dige et
al. 2024 (arXiv 2406.13551; code VectorInstitute/bias-mitigation-unlearning), whose settings `paper` has. Before, TRL
trained it: with the same loss, another order of the batches, and a rate that fell along a cosine instead of a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from evenhand import renaming
from evenhand.interfaces import Model, TrainData, settings
from evenhand.methods.unlearning.pairwise import Pairwise

_FIRST = frozenset(
    {
        "axes",
        "max_pairs",
        "beta",
        "rank",
        "alpha",
        "dropout",
        "targets",
        "epochs",
        "steps",
        "learning_rate",
        "warmup_ratio",
        "batch_size",
        "gradient_accumulation_steps",
        "max_length",
        "precision",
        "validation_fraction",
        "seed",
    }
)
"""The settings that the first version had."""


@settings
class Preference(Pairwise):
    """Train a model to prefer the other side of each pair to the stereotyped one (DPO), and do not stop at parity."""

    training_version: ClassVar[int] = 2
    name: ClassVar[str] = "preference"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"steps": 200, "dropout": 0.05, "targets": "attention", "warmup_ratio": 0.5},
    }
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "paper": {"": "VectorInstitute/bias-mitigation-unlearning 9b7c792, dpo/dpo.py"}
    }
    added_later: ClassVar[frozenset[str]] = frozenset(Pairwise.__dataclass_fields__) - _FIRST
    renamed: ClassVar[Mapping[str, str]] = {
        "most_pairs": "max_pairs",
        "warm_up": "warmup_ratio",
        "accumulate": "gradient_accumulation_steps",
        "held_out": "validation_fraction",
        "topics": "axes",
    }

    stop: Literal["parity", "none"] = "none"
    """none, as ever: all steps are trained, and a bias may be turned around; parity ends at 50 %."""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Train, with a warning that gives the new name."""
        renaming.warn("methods", {self.name: "pairwise(preset=dpo,stop=none)"})
        return super().apply(model, data)
