"""`preference`: the old name of `pairwise(preset=dpo,stop=none)`; it works for one release, with a warning.

Source: Rafailov et al. 2023, "Direct Preference Optimization" (arXiv 2305.18290); as a baseline of unlearning Dige et
al. 2024 (arXiv 2406.13551; code VectorInstitute/bias-mitigation-unlearning), whose settings `paper` has. Before, TRL
trained it, with the same loss, another order of batches, and a cosine instead of a linear decay of the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from evenhand import renaming
from evenhand.interfaces import Model, TrainData, settings
from evenhand.methods.unlearning.pairwise import Pairwise

_CODE = "dpo/dpo.py"
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
"""Settings of the first version."""


@settings
class Preference(Pairwise):
    """Train a model to prefer the other side of each pair to the stereotyped one (DPO), and do not stop at parity."""

    training_version: ClassVar[int] = 2
    name: ClassVar[str] = "preference"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "dpo_weight": 1.0,
            "beta": 0.1,
            "stop": "none",
            "steps": 200,
            "rank": 16,
            "alpha": 16,
            "dropout": 0.05,
            "targets": "attention",
            "learning_rate": 5e-5,
            "warmup_ratio": 0.5,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "batch_size": 16,
            "gradient_accumulation_steps": 1,
            "max_length": 1536,
            "precision": "no",
            "validation_fraction": 0.0,
            "patience": 0,
        },
    }
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "paper": {
            "": f"released code, {_CODE}",
            "targets": f"peft's default for LLaMA and OPT, which {_CODE} leaves",
            "learning_rate": f"released code, {_CODE}; that it falls along a line instead of a cosine is ours",
            "warmup_ratio": f"released code, {_CODE}: 100 of 200 steps",
            "weight_decay": f"default of DPOConfig, which {_CODE} leaves",
            "max_grad_norm": f"default of DPOConfig, which {_CODE} leaves",
            "batch_size": f"released code, {_CODE}: 4 x 4",
            "gradient_accumulation_steps": "ours: the 16 pairs of a step at once, with the same result",
            "max_length": f"released code, {_CODE}; there, longer pairs are cut, here they are left out",
            "precision": f"ours: {_CODE} has weights in float16",
            "validation_fraction": f"released code, {_CODE}: nothing is held out",
            "patience": f"released code, {_CODE}: all steps are trained",
        }
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
    """When training ends. none (as before): after all steps, so that a bias may be reversed. parity: at 50 %."""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Train, with a warning that gives the new name."""
        renaming.warn("methods", {self.name: "pairwise(preset=dpo,stop=none)"})
        return super().apply(model, data)
