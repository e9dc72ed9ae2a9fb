"""Provide the base of methods that steer: one fit per model and training data, used at any strength, scope and layer.

The fit is stored in one small file, for every decoder layer unless a method takes long for each. Strength,
operation, scope and control are not part of its key, so that a sweep over them fits once.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.hashing import digest
from evenhand.core.training_record import record_of
from evenhand.errors import DivergedError, EvenhandError, SettingsError
from evenhand.interfaces import Ability, Method, Model, TrainData, TrainedOn, TrainingRecord, settings
from evenhand.methods.steering import _lesson as lessons
from evenhand.methods.steering import _precision as precision
from evenhand.methods.steering._choosing import chosen
from evenhand.methods.steering._contrasts import Contrast
from evenhand.methods.steering._fit import Fit, base_of, malformed
from evenhand.methods.steering._lesson import Lesson, Split
from evenhand.methods.steering._steered import Steered, identity, innermost, steerable
from evenhand.models import saved
from evenhand.models.masked import MaskedModel
from evenhand.training.trained_method import Fitted, TrainedMethod

if TYPE_CHECKING:
    from evenhand.inference.activation_edits import ActivationEdit
    from evenhand.inference.prompt_gates import PromptGate
    from evenhand.models.tokenization import Encoder

HOOK_POINT = "output of the decoder layer, before the final norm"
AFTERWARDS = frozenset({"axes", "max_pairs", "layer", "strength", "scope", "skip_first", "control", "controls"})
"""Settings that a fit does not depend on, or only through its training data."""
OF_THE_FIT = ("data", "seconds", "precision")
"""Fields of a fit's record that are shared by every method that uses it."""
UNCHANGED = "unchanged_share"
"""Name of a result: the share of the edit lost to rounding. Comparisons report it if a method has no effect."""
Layer = int | float | tuple[int, ...] | Literal["middle", "validation", "all"]
Scope = Literal["all", "answer", "after"]
Control = Literal["none", "random", "flipped"]
CONTROLS: tuple[Control, ...] = ("random", "flipped")


@settings
class ActivationMethod(TrainedMethod):
    """Base of methods that edit hidden states along a direction fitted on contrasts of biased and unbiased answers."""

    not_in_key: ClassVar[frozenset[str]] = AFTERWARDS
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose", "score"})

    axes: tuple[str, ...] = ()
    """Axes (dimensions of social groups) whose pairs and questions in the training data are used; empty takes all."""
    max_pairs: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of pairs, of which the first are taken, and of questions; None takes all."""
    layer: Layer = "middle"
    """Decoder layer whose output is edited, counted from 0; several in brackets; a number between 0 and 1 is a fraction
    of the depth. middle is 0.5. all edits every layer. validation chooses, among all but the last layers, the one whose
    edit makes the model lean least either way on held-out contrasts."""
    strength: float = 1.0
    """How much of the direction is added, or of the states' part along it removed. 0 gives the baseline."""
    scope: Scope = "answer"
    """Tokens whose states are edited. answer: the last token of the prompt and all later ones, so that both answers
    read after the prompt and written replies are steered. after: only tokens after the prompt, which changes replies
    but not letters read after a prompt. all: every token."""
    skip_first: bool = True
    """Whether the first token is left unedited. Its states are an attention sink, up to 100 times longer than
    others."""
    control: Control = "none"
    """Control experiment. random: steer along a random direction of the same length. flipped: steer along the opposite
    direction. Both are for comparison with the method: random should change little, and flipped raise the bias."""
    controls: bool = False
    """Whether a comparison or a sweep gets two more rows for this method, control=random and control=flipped. All three
    use one fit."""
    balance_letters: bool = True
    """Whether questions are read in all cyclic orders of their options, so that the direction contains no preference
    for a letter. The published codes read every question in one order (False)."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Fraction of the contrasts held out, to report how well the direction separates them and to choose a layer. 0 fits
    on all contrasts."""
    seed: int = 0
    """Seed of the held-out contrasts and of the random control."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        if isinstance(self.layer, float) and not 0 < self.layer < 1:
            raise SettingsError(
                f"layer={self.layer}: a fraction of the depth lies between 0 and 1; a layer is a whole number, such as "
                f"layer={int(self.layer)}"
            )
        numbers = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        if not numbers or any(isinstance(n, int) and n < 0 for n in numbers):
            raise SettingsError(f"layer={self.layer}: layers are counted from 0; name at least one")
        if self.controls and self.control != "none":
            raise SettingsError(
                f"controls=True adds the rows of both controls, and control={self.control} is one of them: set one of "
                "the two settings"
            )
        if self.layer == "validation" and not self.validation_fraction:
            raise SettingsError("layer=validation is chosen on held-out contrasts: set validation_fraction above 0")

    @property
    def seeded(self) -> bool:
        """Whether a draw affects answers: of held-out contrasts, or of a random direction."""
        return self.validation_fraction > 0 or self.control == "random"

    def comparison_rows(self) -> dict[str, Method]:
        """Return the method, and with `controls` a random direction of equal length and the opposite one."""
        if not self.controls:
            return {"": self}
        own = replace(self, controls=False)
        return {"": own, **{f"control={name}": replace(own, control=name) for name in CONTROLS}}

    # ------------------------------------------------------------------------------------------- what is asked

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that is not local, causal and otherwise unwrapped, or missing contrasts."""
        if isinstance(model, MaskedModel):
            return (
                f"{self.name} contrasts states at the token where a model decides for an answer, but {model.name} is a "
                "masked language model, which reads a whole text at once and decides nowhere in it; use a causal "
                "model, or edit along a direction of your own with evenhand.models.steered.steered"
            )
        reason = super().unsupported_reason(model, data)
        if not reason and model is not None and not steerable(model):
            reason = (
                f"{self.name} edits hidden states of a local causal model, but {model.name} is not one or has another "
                f"method around it; in a stack it comes first: '{self.name}+self_debias'"
            )
        if reason or (data is not None and (data.pairs or any(a is not None for a in data.answers))):
            return reason
        return (
            f"{self.name} needs pairs, or questions with a right option, to find a direction: training data such as "
            "demo:pairs:Age or pairs:bbq(part=fit) (train= of compare, --train on the command line, data= of apply)"
        )

    def prepared(self, model: Model, data: TrainData) -> Lesson:
        """Return the training data that is used.

        Raises:
            SettingsError: There is too little data.
        """
        return lessons.lesson(self.name, data, self.axes, self.max_pairs)

    def content(self, prepared: Lesson) -> Sequence[object]:
        """Return pairs and questions."""
        return prepared.content

    def key(self, model: Model, prepared: Lesson) -> str:
        """Include the fitted layers in the key."""
        return digest(super().key(model, prepared), self.fitted_layers(sizes(model)[0]))

    def fitted_layers(self, count: int) -> tuple[int, ...]:
        """Layers that are fitted, of that many: all, so that a fit serves every choice of layers."""
        return tuple(range(count))

    # ------------------------------------------------------------------------------------------- applying it

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Fit, or find the fit of the same data, and steer the model with it; the given model is not changed.

        Returns:
            The steered model; the given model itself if the strength is 0.

        Raises:
            SettingsError: The method cannot use the model or data, or the model lacks a layer.
        """
        if reason := self.unsupported_reason(model, data):
            raise SettingsError(reason)
        if self.changes_nothing:
            return model
        if self.controls:  # this concerns tables; the model is the same
            return replace(self, controls=False).apply(model, data)
        data = data or TrainData()
        found = self.prepared(model, data)
        count, hidden = sizes(model)
        layers = self.layers_of(count)  # raises before anything is read
        with self.trained_once(model, found, data.overlap_removed) as kept:
            fit = Fit.load(kept.folder, hidden=hidden, layers=count)
            record = saved.learned_of(kept.folder, self.name)
        tried: list[dict[str, float]] = []
        if layers is None:
            layer, tried = self._chosen(model, found, fit)
            layers = (layer,)
        own = self.used(fit, layers)
        self._require_directions(model, own)
        shares = precision.unchanged(model, _encoder(model), found, self.edit(own))
        precision.say_what_is_lost(self.name, model, shares)
        return self._around(model, own, self._using(model, record, layers, tried, shares))

    def _require_directions(self, model: Model, fit: Fit) -> None:
        """Refuse to edit along a zero direction.

        Raises:
            SettingsError: Both sides have the same states at a layer.
        """
        for layer, found in fit.directions.items():
            if not bool(found.any(-1).all()):
                raise SettingsError(
                    f"{self.name}: biased and unbiased answers have the same states in {model.name} at layer {layer}, "
                    "so there is no direction: check that the sides of the training pairs differ, or set another layer"
                )

    def _chosen(self, model: Model, found: Lesson, fit: Fit) -> tuple[int, list[dict[str, float]]]:
        """Choose the layer on held-out contrasts. A control or negative strength uses the layer of what it mirrors."""
        from evenhand.models.steered import steered

        own = replace(self, control="none", strength=abs(self.strength))

        def edited_at(layer: int) -> Model:
            part = own.used(fit, [layer])
            return steered(innermost(model), own.edit(part), prompt_gate=own.prompt_gate(part))

        return chosen(edited_at, list(fit.directions), self.validation_contrasts(model, found))

    def restore(self, model: Model, folder: Path) -> Model:
        """Steer a model with a saved fit.

        Raises:
            EvenhandError: It was fitted to another model, or has a format that evenhand does not write.
        """
        record = saved.learned_of(folder, self.name)
        count, hidden = sizes(model)
        fit = Fit.load(folder, hidden=hidden, layers=count)
        same = record is not None and (
            record.base.fingerprint == model.fingerprint or base_of(folder) == identity(model)
        )
        if record is None or not same:
            base = record and record.base.name
            raise EvenhandError(
                f"the direction in {folder} was found on another model ({base or 'none is named'}) than {model.name}: "
                "their weights differ, and directions of one model mean nothing in another. Apply the method anew"
            )
        if missing := self.incomplete(fit, self.layers_of(count)):
            raise malformed(folder, missing)
        return self._around(model, fit, record)

    def incomplete(self, fit: Fit, layers: Sequence[int] | None) -> str:
        """Return what a saved fit lacks for these settings, or "".

        Args:
            fit: A fit read from a file.
            layers: Layers that the settings edit; None if they were chosen on held-out contrasts.
        """
        if layers is not None and {*layers} != {*fit.directions}:
            return f"it has directions of the layers {sorted(fit.directions)}, but layer={self.layer} is set"
        return ""

    def _around(self, model: Model, fit: Fit, record: TrainingRecord) -> Model:
        edit = self.edit(fit)
        return model if edit.is_identity else Steered(model, self, edit, fit, record, self.prompt_gate(fit))

    def _using(
        self,
        model: Model,
        record: TrainingRecord | None,
        layers: Sequence[int],
        tried: Sequence[Mapping[str, float]],
        unchanged: Mapping[str, float],
    ) -> TrainingRecord:
        """Return the record of this use of a fit."""
        known = {} if record is None else {name: getattr(record, name) for name in OF_THE_FIT}
        results = {} if record is None else {key: _cut(key, value, layers) for key, value in record.results.items()}
        layer = {"layers": list(layers), **({"layers_tried": [dict(row) for row in tried]} if tried else {})}
        return record_of(self, model, **known, results={**results, **layer, UNCHANGED: dict(unchanged)})

    def layers_of(self, count: int) -> tuple[int, ...] | None:
        """Return the edited layers, out of that many; None if they are to be chosen on held-out contrasts.

        Raises:
            SettingsError: The model has no such layer.
        """
        if self.layer == "validation":
            return None
        if self.layer == "all":
            return tuple(range(count))
        if isinstance(self.layer, str | float):
            return (int(count * (0.5 if isinstance(self.layer, str) else self.layer)),)
        named = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        if beyond := [n for n in named if n >= count]:
            raise SettingsError(f"{self.name}: layer={beyond[0]}, but the model has the layers 0 to {count - 1}")
        return tuple(sorted(set(named)))

    def used(self, fit: Fit, layers: Sequence[int]) -> Fit:
        """Return the part of the fit of all layers that is used when some are edited."""
        return fit.only(layers)

    @property
    def signed_strength(self) -> float:
        """The strength, negated for the flipped control."""
        return -self.strength if self.control == "flipped" else self.strength

    @property
    def changes_nothing(self) -> bool:
        """Whether the settings leave every model as it is."""
        return self.strength == 0

    @abstractmethod
    def edit(self, fit: Fit) -> ActivationEdit:
        """Return the edit of hidden states at all layers of a fit."""

    def prompt_gate(self, fit: Fit) -> PromptGate | None:
        """Return the gate that decides about whole prompts; None if there is none."""
        return None

    # ------------------------------------------------------------------------------------------- fitting

    @property
    def splitting(self) -> Split:
        """What stays together when contrasts are held out."""
        return "template"

    @abstractmethod
    def learned(
        self, model: Model, encoder: Encoder, train: Sequence[Contrast], held: Sequence[Contrast]
    ) -> tuple[Fit, dict[str, Any]]:
        """Fit on contrasts, in the orders in which they are shown.

        Args:
            model: Model whose states are read.
            encoder: Encoder of its tokenizer.
            train: Contrasts to fit on.
            held: Contrasts to report on; may be empty.

        Returns:
            The fit for every layer, and results for the record.
        """

    def train(self, model: Model, prepared: Lesson, folder: Path) -> Fitted:
        """Read states of both sides and fit."""
        began = time.monotonic()
        encoder = _encoder(model)
        found = lessons.contrasts(model, encoder, prepared)
        train, held = lessons.divided(found, self.splitting, self.validation_fraction, self.seed)
        own, others = (lessons.shown(some, balanced=self.balance_letters) for some in (train, held))
        fit, results = self.learned(model, encoder, own, others)
        data = TrainedOn(unit="pairs", training=len(train), validation=len(held), hash=lessons.data_hash(prepared))
        _, hidden = sizes(model)
        facts = {"hook_point": HOOK_POINT, "hidden_size": hidden, **results}
        return Fitted(None, {"data": data, "seconds": round(time.monotonic() - began, 1), "results": facts}, fit)

    def validation_contrasts(self, model: Model, prepared: Lesson) -> list[Contrast]:
        """Return the contrasts that a fit held out, in the orders in which they are shown."""
        found = lessons.contrasts(model, _encoder(model), prepared)
        _, held = lessons.divided(found, self.splitting, self.validation_fraction, self.seed)
        return lessons.shown(held, balanced=self.balance_letters)

    def check(self, model: Model, made: Fitted) -> None:
        """Refuse directions that are not finite.

        Raises:
            DivergedError: The model's states are not finite.
        """
        fit: Fit = made.more
        tensors = [*fit.directions.values(), *fit.offsets.values(), *(t for pair in fit.gates.values() for t in pair)]
        if not all(bool(t.isfinite().all()) for t in tensors):
            raise DivergedError(
                f"{self.name}: hidden states of {model.name} are not finite, so no direction can be found; load it "
                "with dtype=float32"
            )

    def keep(self, model: Model, made: Fitted, record: TrainingRecord, folder: Path) -> None:
        """Save the fit of all layers, and finally its record."""
        made.more.save(folder)
        saved.write_learned(folder, record)


def _cut(name: str, value: Any, layers: Sequence[int]) -> Any:
    """Restrict a fit's result to the layers that are used; what was held out is the same for all layers."""
    by_layer = isinstance(value, Mapping) and value and all(str(key).isdigit() for key in value)
    if not by_layer or name.startswith("held_out"):
        return value
    return {key: one for key, one in value.items() if int(key) in layers}


def sizes(model: Model) -> tuple[int, int]:
    """Return the number of decoder layers and the hidden size."""
    config = model.weights.module.config.get_text_config()
    return int(config.num_hidden_layers), int(config.hidden_size)


def _encoder(model: Model) -> Encoder:
    from evenhand.models.tokenization import Encoder

    return Encoder(model.weights.tokenizer)
