"""A local model whose activations are edited while it answers; it shares the base's weights, which are not changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from evenhand.core.hashing import digest
from evenhand.errors import MissingAbilityError, SettingsError
from evenhand.inference import Engine
from evenhand.inference.activation_edits import ActivationEdit
from evenhand.inference.encoder import EncoderEngine
from evenhand.inference.prompt_gates import GatedEngine, PromptGate
from evenhand.interfaces import Ability, Combine, Model, Weights
from evenhand.models.masked import MaskedModel
from evenhand.models.prefixed import PrefixedModel
from evenhand.models.token_model import TokenModel

_ALONE = "{} is saved with the method that made it; save that method's model"


def steered(
    model: Model, edit: ActivationEdit, *, name: str | None = None, prompt_gate: PromptGate | None = None
) -> Model:
    """Return a model that answers as another one does with its activations edited.

    Args:
        model: A local causal or masked language model, or the result of this function; it is not changed, shares its
            weights with the result, and may be used in between.
        edit: Edit of the activations. One that changes nothing returns `model` itself.
        name: Label for tables; None uses the model's.
        prompt_gate: Decides for every prompt whether the edit acts on it; only for causal models.

    Raises:
        MissingAbilityError: The activations of `model` are not accessible.
        SettingsError: The edit does not fit the model's layers or hidden size, or its scope or gate is not possible.
    """
    engine = engine_of(model)
    if edit.is_identity:
        return model
    if isinstance(model, MaskedModel) and isinstance(engine, EncoderEngine):
        if prompt_gate is not None:
            raise SettingsError(f"{model.name} is a masked language model, whose texts have no prompt to gate by")
        return SteeredMaskedModel(model, engine.edited(edit), edit, name or model.name)
    if not isinstance(model, TokenModel) or not isinstance(engine, Engine):
        raise _out_of_reach(model)
    edited = engine.edited(edit)
    acting = edited if prompt_gate is None else GatedEngine(engine, edited, prompt_gate, lambda: model.fingerprint)
    return SteeredModel(model, acting, edit, name or model.name, prompt_gate)


def engine_of(model: Model) -> Engine | EncoderEngine:
    """Return the engine of a local model, which reads its states (`evenhand.inference.states`).

    Raises:
        MissingAbilityError: Its activations are not accessible: it runs elsewhere, a method wraps it, or its edits
            depend on the prompt.
    """
    if isinstance(model, TokenModel | MaskedModel) and not isinstance(model, PrefixedModel):
        engine = model.engine
        if isinstance(engine, Engine | EncoderEngine):
            return engine
    raise _out_of_reach(model)


def _out_of_reach(model: Model) -> MissingAbilityError:
    if isinstance(model, SteeredModel):
        reason = "a gate decides for each of its prompts whether they are edited; steer the model below instead"
    elif model.methods:
        reason = f"{'+'.join(model.methods)} wraps it; steer first, and apply other methods to the result"
    else:
        reason = "it is not a model in this process; open its weights with evenhand.load or evenhand.wrap"
    return MissingAbilityError(f"the activations of {model.name!r} cannot be read or edited: {reason}")


class SteeredModel(TokenModel):
    """A causal language model with edited activations."""

    engine: Engine | GatedEngine

    def __init__(
        self,
        base: TokenModel,
        engine: Engine | GatedEngine,
        edit: ActivationEdit,
        name: str,
        prompt_gate: PromptGate | None = None,
    ) -> None:
        """Make a steered model; usually done by `steered`.

        Args:
            base: Model without the edit.
            engine: Engine that runs the module with the edit.
            edit: Edit of the activations.
            name: Label for tables.
            prompt_gate: Decides which prompts are edited; None edits all.
        """
        super().__init__(
            base._tokenizer,
            engine,
            name=name,
            source=base.source,
            load_options=dict(base.load_options),
            answer_by=base.answer_by,
            sampling=base.sampling,
            too_long=base.too_long,
            thinking_tokens=base.thinking_tokens,
        )
        self.base, self.edit, self.prompt_gate = base, edit, prompt_gate

    @property
    def fingerprint(self) -> str:
        """Hash of the base, the edit and the gate."""
        return fingerprint_of(self.base, self.edit, self.prompt_gate)

    @property
    def context_length(self) -> int:  # type: ignore[override]  # derived, so it cannot be set
        """Context length of the base."""
        return self.base.context_length

    def rehash(self) -> None:
        """Hash the base's weights now."""
        self.base.rehash()

    def facts(self) -> dict[str, Any]:
        """Return the base's facts, and what is edited."""
        engine = self.engine if isinstance(self.engine, Engine) else self.engine.edited
        own = {"answer_by": self.answer_by, **edit_facts(engine.edit or self.edit)}
        if self.prompt_gate is not None:
            own["prompt_gate_layer"] = self.prompt_gate.layer
        return {**self.base.facts(), **super().facts(), **own}

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> Model:
        """Return this model guided by what it would write after other texts; see `PrefixedModel`.

        Raises:
            MissingAbilityError: A gate decides for every prompt whether it is edited.
        """
        if not isinstance(self.engine, Engine):
            raise MissingAbilityError(
                f"{self.name} cannot be guided by prefixes: its gate could decide differently for a prompt with and "
                "without a prefix; steer without a prompt gate"
            )
        return PrefixedModel(self, self.engine, prefixes, combine, settings)

    def save(self, folder: str | Path) -> Path:
        """Refuse to save: the method that made it is saved with the base."""
        raise MissingAbilityError(_ALONE.format(self.name))


class SteeredMaskedModel(MaskedModel):
    """A masked language model with edited activations."""

    def __init__(self, base: MaskedModel, engine: EncoderEngine, edit: ActivationEdit, name: str) -> None:
        """Make a steered model; usually done by `steered`.

        Args:
            base: Model without the edit.
            engine: Engine that runs the module with the edit.
            edit: Edit of the activations.
            name: Label for tables.
        """
        self.name, self.source, self.too_long = name, base.source, base.too_long
        self.load_options, self._batch_tokens = base.load_options, base._batch_tokens
        self._module, self._tokenizer = base._module, base._tokenizer
        self.base, self.engine, self.edit = base, engine, edit

    @property
    def abilities(self) -> frozenset[Ability]:
        """Scoring alone; the weights are accessible on the base only."""
        return frozenset({"score"})

    @property
    def fingerprint(self) -> str:
        """Hash of the base and the edit."""
        return fingerprint_of(self.base, self.edit)

    @property
    def weights(self) -> Weights:
        """Refused: the base's weights would answer without the edit."""
        raise self.unsupported("weights")

    @weights.setter
    def weights(self, given: Weights) -> NoReturn:
        raise self.unsupported("weights")

    @contextmanager
    def editing(self) -> Iterator[Weights]:
        """Refuse to edit weights; edit the base's."""
        raise self.unsupported("weights")
        yield  # makes this a generator, as in the base class

    @property
    def weights_hash(self) -> str:  # type: ignore[override]  # derived, so it cannot be set
        """Hash of the base's weights."""
        return self.base.weights_hash

    @property
    def edited(self) -> bool:  # type: ignore[override]  # derived, so it cannot be set
        """Whether the base's weights differ from files on disk."""
        return self.base.edited

    def rehash(self) -> None:
        """Hash the base's weights now."""
        self.base.rehash()

    def facts(self) -> dict[str, Any]:
        """Return the base's facts, and what is edited."""
        return {
            **self.base.facts(),
            "name": self.name,
            "abilities": sorted(self.abilities),
            **edit_facts(self.engine.edit or self.edit),
        }

    def save(self, folder: str | Path) -> Path:
        """Refuse to save: the method that made it is saved with the base."""
        raise MissingAbilityError(_ALONE.format(self.name))


def fingerprint_of(base: Model, edit: ActivationEdit, prompt_gate: PromptGate | None = None) -> str:
    """Return the fingerprint of a steered model; the base's if the edit changes nothing."""
    if edit.is_identity:
        return base.fingerprint
    return digest("steered", base.fingerprint, edit.digest(), None if prompt_gate is None else prompt_gate.key())


def edit_facts(edit: ActivationEdit) -> dict[str, Any]:
    """Return what is edited, as JSON values."""
    layers = [
        {"layer": layer, "mode": one.mode, "strength": one.strength, "gated": one.gate is not None}
        for layer, edits in edit.acting.items()
        for one in edits
    ]
    return {"activation_edit": {"scope": edit.scope, "skip_first": edit.skip_first, "layers": layers}}
