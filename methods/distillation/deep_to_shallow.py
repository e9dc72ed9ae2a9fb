"""`deep_to_shallow`: a masked model's last layers teach an inner one, whose features are to be alike across clusters.

EXPERIMENTAL. After Bayasi et al. 2025, "Debiasify: Self-Distillation for Unsupervised Bias Mitigation" (WACV 2025; code
nourhanb/Debiasify), which classifies images; it has not been shown to remove a social bias from a language model. The
loss is 1/2 (CE_shallow + CE_deep) + `kl` KL + `mmd` MMD. `evenhand.methods.distillation._exits` lists what is ours.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import resolved_precision
from evenhand.errors import SettingsError
from evenhand.interfaces import Model, settings
from evenhand.methods.distillation._text_training import TextTraining
from evenhand.training.trained_method import Fitted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.methods.distillation._batches import Ids, Text
    from evenhand.methods.distillation._exits import Batch, Lesson, TwoExits, Weights
    from evenhand.training.loop import Schedule, Training

_CODE = "nourhanb/Debiasify 075440a"


@settings
class DeepToShallow(TextTraining):
    """Experimental: self-distillation of a masked model from its last layer to an inner one, across pseudo-groups."""

    name: ClassVar[str] = "deep_to_shallow"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "released": {
            "align": "layers",
            "alignment": True,
            "mmd_width": 1.0,
            "detach_deep": False,
            "ce_epochs": 5,
            "kl": 0.1,
            "mmd": 1.0,
            "temperature": 1.0,
            "masking": 0.15,
            "max_length": 256,
            "learning_rate": 1e-4,
            "learning_rate_decay": "none",
            "warmup_ratio": 0.0,
            "weight_decay": 0.0,
            "max_grad_norm": 0.0,
            "batch_size": 100,
            "gradient_accumulation_steps": 1,
            "precision": "auto",
            "epochs": 50,
            "validation_fraction": 0.0,
            "patience": 0,
        }
    }
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {
        "released": {
            "": _CODE,
            "kl": f"{_CODE}, trainer.py: alpha",
            "mmd": f"{_CODE}, trainer.py: added without a weight",
            "temperature": f"{_CODE}, losses.py: logits as they are",
            "masking": "ours, the usual one: images have no tokens to hide",
            "max_length": "ours: images have no tokens",
            "weight_decay": "ours, off: trainer.py has an L2 penalty of .01 in Adam, which decoupled decay is not",
            "precision": "ours: trainer.py has float32",
            "alignment": f"{_CODE} has such a layer; that it is linear is ours",
            "learning_rate_decay": "ours: Adam without a schedule",
            "warmup_ratio": "ours: Adam without a schedule",
            "max_grad_norm": "ours: Adam without clipping",
            "validation_fraction": "ours: all texts are trained on",
            "patience": "ours: nothing is held out",
        }
    }
    added_later: ClassVar[frozenset[str]] = frozenset({"alignment", "mmd_width", "detach_deep", "ce_epochs"})
    renamed: ClassVar[Mapping[str, str]] = {"most_groups": "max_groups"}

    exit_layer: Annotated[int, Field(gt=0)] | None = None
    """Inner layer whose states also go through the model's own head; None is half of the layers."""
    kl: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the divergence of the inner exit from the last one, which teaches it."""
    mmd: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the maximum mean discrepancy between features."""
    align: Literal["groups", "layers"] = "groups"
    """Features that are brought together, by maximum mean discrepancy: those of texts in different pseudo-groups at the
    inner layer (groups), or those of the inner and the last layer (layers, the released code)."""
    alignment: bool = False
    """With align=layers, whether a linear layer maps the inner features before they are compared with the last ones, as
    in the released code. It is trained along, and not part of the result."""
    mmd_width: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the discrepancy's Gaussian kernel; None uses the median distance in each batch. 1 in the
    released code."""
    detach_deep: bool = True
    """Whether the divergence trains the inner exit only. In the released code it trains the last exit, too."""
    ce_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of initial epochs that train only on the cross-entropy of both exits; 5 in the released code."""
    max_groups: Annotated[int, Field(ge=2)] = 8
    """Maximum number of pseudo-groups. In each epoch their number, at least 2, is the one with the highest
    silhouette."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of both exits in the divergence, which is multiplied by its square."""
    result: Literal["deep", "shallow"] = "deep"
    """What is returned: the whole model (deep), or its layers up to the inner one (shallow)."""

    def __post_init__(self) -> None:
        """Refuse an alignment of features from a single layer."""
        if self.alignment and self.align != "layers":
            raise SettingsError("alignment=True maps inner features to last ones: set align=layers, or leave it out")

    def _unfit(self, model: Model) -> str:
        """Return a reason against models that are not masked."""
        if model.architecture == "masked":
            return ""
        return f"{self.name} is for masked models; {model.name} is causal: use fair_distillation"

    def check_model(self, model: Model) -> None:
        """Check that the model has the inner layer, and a head for it.

        Raises:
            SettingsError: It does not.
        """
        from evenhand.methods.distillation._exits import check_exit

        check_exit(model.weights.module, self._layer(model.weights.module))

    def _layer(self, module: Any) -> int:
        from evenhand.methods.distillation._exits import layers_of

        return self.exit_layer if self.exit_layer is not None else layers_of(module) // 2

    def train(self, model: Model, prepared: Sequence[str], folder: Path) -> Fitted:
        """Train both exits on texts."""
        from evenhand.methods.distillation._exits import TwoExits, layers_of, with_alignment, without_alignment
        from evenhand.training.holding_out import hold_out
        from evenhand.training.students import build, keep_layers

        module, tokenizer = model.weights
        ids, texts_of = self._encoded(model, prepared)
        student = build("copied", module, layers=layers_of(module), rank=1, seed=self.seed, named=False)
        train, held = hold_out(range(len(ids)), texts_of, self.validation_fraction, self.seed)
        lesson = self._lesson(tokenizer, self._layer(module), ids, train, held)
        alignment = with_alignment(student, self.seed) if self.alignment else None
        run = TwoExits(student, lesson, self._weights, alignment)
        schedule = self._schedule(module, 5e-4)
        began = time.monotonic()
        first = run.judged() if held else {}
        made = self._training(run, schedule, folder).run()
        if alignment is not None:
            without_alignment(student)
        known = {
            "data": self._trained_on(prepared, len(train), len(held)),
            "precision": resolved_precision(self.precision, str(schedule.device)),
            "epochs": len(made.curve),
            "best_epoch": made.best,
            "curve": ({"epoch": -1.0, **first}, *made.curve),
            "seconds": round(time.monotonic() - began, 1),
            "results": {
                **self._results(model, run),
                "trained_tokens": sum(len(ids[n]) for n in train) * len(made.curve),
            },
        }
        if self.result == "shallow":
            keep_layers(student, list(range(lesson.layer)))
        for p in student.parameters():  # training was in float32
            p.data = p.data.to(module.dtype)
        return Fitted(student, known)

    def _lesson(
        self,
        tokenizer: PreTrainedTokenizerBase,
        layer: int,
        ids: Sequence[Ids],
        train: Sequence[int],
        held: Sequence[int],
    ) -> Lesson:
        """Return what is trained on, and what is held out.

        Args:
            tokenizer: The model's own.
            layer: The inner layer.
            ids: All texts in tokens.
            train: Indices of the texts to train on.
            held: Indices of the held-out texts.
        """
        from evenhand.methods.distillation._batches import Masking, hiding
        from evenhand.methods.distillation._exits import Lesson
        from evenhand.methods.distillation._learning import HELD_OUT

        masking = Masking(self.masking, self.masking, frozenset())

        def drawn(which: Sequence[int], epoch: int) -> list[Text]:
            places = [[False] * len(ids[n]) for n in which]  # no rule acts anywhere
            return hiding([ids[n] for n in which], lambda *_: places, masking, tokenizer, f"{self.seed}/{epoch}")

        return Lesson(
            lambda epoch: drawn(train, epoch),
            drawn(held, HELD_OUT),
            layer,
            self.max_groups,
            self.batch_tokens,
            int(tokenizer.pad_token_id or 0),
            self.seed,
            self.batch_size,
            self.ce_epochs,
        )

    @property
    def _weights(self) -> Weights:
        from evenhand.methods.distillation._exits import Weights

        return Weights(self.kl, self.mmd, self.temperature, self.align, self.detach_deep, self.mmd_width)

    def _training(self, run: TwoExits, schedule: Schedule, folder: Path) -> Training[Batch]:
        from evenhand.training.loop import Training

        return Training(
            module=run.module,
            batches=run.batches,
            loss=run.loss,
            evaluate=run.judged if run.lesson.held else None,
            watched="held_out_loss",
            keep_last=self.keep_epoch == "last",
            schedule=schedule,
            folder=folder,
            label="training both exits",
        )

    @staticmethod
    def _results(model: Model, run: TwoExits) -> dict[str, Any]:
        return {
            "experimental": True,
            "teacher": model.name,
            "exit_layer": run.lesson.layer,
            "pseudo_groups": [g.many for g in run.found],
            "silhouettes": [round(g.silhouette, 3) for g in run.found],
        }
