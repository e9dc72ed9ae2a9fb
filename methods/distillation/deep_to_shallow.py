"""`deep_to_shallow`: a masked model's last layers teach an inner one, whose features are to be alike across clusters.

EXPERIMENTAL. After Bayasi et al. 2025, "Debiasify: Self-Distillation for Unsupervised Bias Mitigation" (WACV 2025; code
nourhanb/Debiasify), which classifies images; that it takes a social bias out of a language model is shown nowhere. The
loss is 1/2 (CE_shallow + CE_deep) + `kl` KL + `mmd` MMD. `evenhand.methods.distillation._exits` tells what is ours.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import resolved_precision
from evenhand.interfaces import Model, settings
from evenhand.methods.distillation._text_training import TextTraining
from evenhand.training.trained_method import Fitted

if TYPE_CHECKING:
    from evenhand.methods.distillation._batches import Text


@settings
class DeepToShallow(TextTraining):
    """Experimental: self-distillation of a masked model from its last layer to an inner one, across pseudo-groups."""

    name: ClassVar[str] = "deep_to_shallow"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"released": {"align": "layers"}}
    renamed: ClassVar[Mapping[str, str]] = {"most_groups": "max_groups"}

    exit_layer: Annotated[int, Field(gt=0)] | None = None
    """The inner layer that leaves through the model's own head; None is half of the layers."""
    kl: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the divergence of the inner exit from the last one, which it teaches."""
    mmd: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the discrepancy of features."""
    align: Literal["groups", "layers"] = "groups"
    """Whose features are brought together, by maximum mean discrepancy: of texts in different pseudo-groups, at the
    inner layer; or of the inner and the last layer (the released code)."""
    max_groups: Annotated[int, Field(ge=2)] = 8
    """Maximum number of pseudo-groups. In each epoch their number, from 2 on, is the one of the highest silhouette."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of both exits in the divergence, which is times its square."""
    result: Literal["deep", "shallow"] = "deep"
    """The whole model, or its layers up to the inner one."""

    def _unfit(self, model: Model) -> str:
        """It is for masked models."""
        if model.architecture == "masked":
            return ""
        return f"{self.name} is for masked models; {model.name} is causal: take fair_distillation"

    def check_model(self, model: Model) -> None:
        """The model has to have such an inner layer, and a head for it.

        Raises:
            SettingsError: It has not.
        """
        from evenhand.methods.distillation._exits import check_exit

        check_exit(model.weights.module, self._layer(model.weights.module))

    def _layer(self, module: Any) -> int:
        from evenhand.methods.distillation._exits import layers_of

        return self.exit_layer if self.exit_layer is not None else layers_of(module) // 2

    def train(self, model: Model, prepared: Sequence[str], folder: Path) -> Fitted:
        """Train both exits on texts."""
        from evenhand.methods.distillation._batches import Masking, hiding
        from evenhand.methods.distillation._exits import Lesson, TwoExits, Weights, layers_of
        from evenhand.methods.distillation._learning import HELD_OUT
        from evenhand.training.holding_out import hold_out
        from evenhand.training.loop import Schedule, Training
        from evenhand.training.students import build, keep_layers

        module, tokenizer = model.weights
        ids, texts_of = self._encoded(model, prepared)
        layer = self._layer(module)
        student = build("copied", module, layers=layers_of(module), rank=1, seed=self.seed, named=False)
        train, held = hold_out(range(len(ids)), texts_of, self.validation_fraction, self.seed)
        masking = Masking(self.masking, self.masking, frozenset())

        def drawn(which: Sequence[int], epoch: int) -> list[Text]:
            places = [[False] * len(ids[n]) for n in which]  # no rule acts anywhere
            return hiding([ids[n] for n in which], lambda *_: places, masking, tokenizer, f"{self.seed}/{epoch}")

        lesson = Lesson(
            lambda epoch: drawn(train, epoch),
            drawn(held, HELD_OUT),
            layer,
            self.max_groups,
            self.batch_tokens,
            int(tokenizer.pad_token_id or 0),
            self.seed,
        )
        run = TwoExits(student, lesson, Weights(self.kl, self.mmd, self.temperature, self.align))
        schedule = Schedule.of(
            self,
            learning_rate=self.learning_rate or 5e-4,
            device=self.device or str(module.device),
            precision=self.precision,
        )
        began = time.monotonic()
        first = run.judged() if held else {}
        made = Training(
            module=student,
            batches=run.batches,
            loss=run.loss,
            evaluate=run.judged if held else None,
            watched="held_out_loss",
            schedule=schedule,
            folder=folder,
            label="training both exits",
        ).run()
        seconds = round(time.monotonic() - began, 1)
        results = {
            "experimental": True,
            "teacher": model.name,
            "exit_layer": layer,
            "pseudo_groups": [g.many for g in run.found],
            "silhouettes": [round(g.silhouette, 3) for g in run.found],
            "trained_tokens": sum(len(ids[n]) for n in train) * len(made.curve),
        }
        known = {
            "data": self._trained_on(prepared, len(train), len(held)),
            "precision": resolved_precision(self.precision, str(schedule.device)),
            "epochs": len(made.curve),
            "best_epoch": made.best,
            "curve": ({"epoch": -1.0, **first}, *made.curve),
            "seconds": seconds,
            "results": results,
        }
        if self.result == "shallow":
            keep_layers(student, list(range(layer)))
        for p in student.parameters():  # it was trained in float32
            p.data = p.data.to(module.dtype)
        return Fitted(student, known)
