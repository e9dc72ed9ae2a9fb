"""`task_vector`: fine-tune on biased texts, and subtract what that changed from the weights.

Source: Ilharco et al. 2023, "Editing Models with Task Arithmetic" (arXiv 2212.04089); Zhang et al. 2023 (arXiv
2306.14870) for adapters; Dige et al. 2024, "Mitigating Social Biases in Language Models through Unlearning" (arXiv
2406.13551; code VectorInstitute/bias-mitigation-unlearning) for social bias and the settings of `paper`. Ours: the
choice of the strength on validation texts, strengths by layer, texts to retain, loss of the biased continuation
only, the random control, several vectors at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from evenhand.core.artifacts import made_with, resolved_precision
from evenhand.core.hashing import digest
from evenhand.core.training_record import record_of
from evenhand.errors import SettingsError
from evenhand.interfaces import (
    Ability,
    Model,
    OverlapRemoved,
    Pair,
    TrainData,
    TrainingRecord,
    in_first_names,
    settings,
)
from evenhand.models import saved
from evenhand.training.preset_values import UNSTATED
from evenhand.training.trained_method import Fitted, TrainedMethod

if TYPE_CHECKING:
    from evenhand.methods.unlearning._fine_tuning import Example, Plan
    from evenhand.methods.unlearning._task_vectors import TaskVector

LEAST_TEXTS = 20
"""Minimum number of different texts for training and evaluation."""
RATES = {"opt": 2e-4}
"""Learning rates of adapters by model family, if they are not the usual one (Dige et al.)."""
USUAL_RATE, WHOLE_RATE = 5e-4, 2e-5
HELD_PAIRS = 0.2
"""Share of the pairs on which the strength is chosen."""
OF_ONE_VECTOR = ("data", "precision", "epochs", "best_epoch", "curve", "seconds")
"""Fields of a vector's record that are those of the whole method if there is one vector."""
_AFTERWARDS = frozenset(
    {
        "strength",
        "strengths",
        "limit",
        "neutral",
        "per_layer",
        "outside",
        "control",
        "form",
        "device",
        "text",
        "max_texts",
        "tuned",
        "axes",
    }
)
"""Settings that a trained vector does not depend on, or only through its content."""


class Lesson(NamedTuple):
    """Everything a vector is made from."""

    texts: Sequence[str]
    pairs: Sequence[Pair]
    examples: Sequence[Example]
    """Texts and pairs in tokens."""


@settings
class TaskVectorNegation(TrainedMethod):
    """Fine-tune on biased texts and subtract what the fine-tuning changed."""

    training_version: ClassVar[int] = 2
    not_in_key: ClassVar[frozenset[str]] = _AFTERWARDS
    name: ClassVar[str] = "task_vector"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "fit": "lora",
            "rank": 8,
            "alpha": 8,
            "dropout": 0.01,
            "targets": "attention",
            "loss": "all",
            "max_length": 256,
            "epochs": 10,
            "learning_rate": None,
            "warmup_steps": 100,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "batch_size": 16,
            "gradient_accumulation_steps": 1,
            "precision": "no",
            "validation_fraction": 0.0,
            "patience": 0,
            "strength": 1.0,
            "strengths": (0.2, 0.4, 0.6, 0.8, 1.0),
        },
    }
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "paper": {
            "": "released code, task_vectors/train_model.py",
            "fit": "released code, task_vectors/README.md: --pem lora_adapter",
            "alpha": "peft's default, which task_vectors/train_model.py leaves",
            "targets": "peft's default for LLaMA and OPT, which task_vectors/train_model.py leaves",
            "weight_decay": "default of TrainingArguments, which task_vectors/train_model.py leaves",
            "precision": "default of TrainingArguments, which task_vectors/train_model.py leaves",
            "max_grad_norm": "default of TrainingArguments, which task_vectors/train_model.py leaves",
            "max_length": "ours: task_vectors/train_model.py cuts nothing",
            "learning_rate": "released code, task_vectors/train_model.py: 5e-4, and 2e-4 of OPT, which None stands for",
            "batch_size": "released code, task_vectors/train_model.py: 2 x 8 (OPT: 4 x 4)",
            "gradient_accumulation_steps": "ours: the 16 texts of a step at once",
            "strength": UNSTATED + ", which of the five its tables have",
            "validation_fraction": "released code, task_vectors/train_model.py: eval_dataset is the training data",
            "strengths": "arXiv 2406.13551, scaling coefficients",
        }
    }
    added_later: ClassVar[frozenset[str]] = frozenset({"gradient_accumulation_steps", "max_grad_norm"})
    renamed: ClassVar[Mapping[str, str]] = {
        "most_texts": "max_texts",
        "keep": "retain_kl_weight",
        "warm_up": "warmup_ratio",
        "warm_up_steps": "warmup_steps",
        "held_out": "validation_fraction",
        "topics": "axes",
    }

    text: str | tuple[str, ...] | None = None
    """Biased texts: a .txt or .jsonl file, or datasets:NAME[:SPLIT[:COLUMN]]; with several in brackets, each gets its
    own vector. None takes the texts of the training data, or else the stereotyped sides of its pairs. Unlike those,
    they are not checked for overlap with what a benchmark asks."""
    max_texts: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of texts, of which the first are used; None uses all."""
    axes: tuple[str, ...] = ()
    """Axes (dimensions of social groups) whose pairs in the training data are unlearned; on the other pairs the model
    is kept close to the baseline (`retain_kl_weight`). Empty unlearns all pairs."""
    tuned: str | None = None
    """Folder of a PEFT adapter or a model that was fine-tuned on biased texts elsewhere; nothing is trained. What the
    adapter's initialisation changed in the base (PiSSA, OLoRA) is part of the vector."""
    fit: Literal["lora", "full"] = "lora"
    """What is trained: an adapter (lora), or all weights in float32 (full)."""
    loss: Literal["all", "continuation"] = "all"
    """Tokens that are learned. all: every token of a text (as in the paper). continuation: in pairs, only those after
    the prompt."""

    strength: float | tuple[float, ...] | Literal["auto"] = 1.0
    """How much is subtracted (the paper's lambda): 0 is the baseline, -1 the biased fine-tune; with several vectors one
    value each, or one for all. auto chooses among `strengths`, on `neutral` texts and held-out pairs."""
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """Values that strength=auto tries."""
    limit: Annotated[float, Field(ge=0)] = 0.05
    """With strength=auto, maximum relative increase of the perplexity on `neutral`."""
    neutral: str | None = None
    """With strength=auto, texts unrelated to the bias, given as for `text`; demo:texts for the demo."""
    per_layer: tuple[float, ...] | None = None
    """Factors on the strength from the first to the last layer; fewer than there are layers are spread evenly and
    interpolated linearly. None is 1 everywhere."""
    outside: float = 1.0
    """Factor on the strength outside the layers: embeddings, last norm, head."""
    control: Literal["none", "random"] = "none"
    """Control experiment. random subtracts a random vector instead, with the same norm and rank weight by weight."""
    form: Literal["auto", "adapter", "merged"] = "auto"
    """How the result is stored. adapter: the base is unchanged, with the difference in float32. merged: summed in
    float32 and rounded once to the base's precision. auto: adapter if one can represent it."""

    rank: Annotated[int, Field(gt=0)] = 8
    """Rank of the adapter."""
    alpha: Annotated[int, Field(gt=0)] | None = None
    """Scale of the adapter, which is weighted by alpha / rank; None is twice the rank. The paper does not state it; its
    code uses peft's 8."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout in the adapter."""
    rslora: bool = False
    """Whether the adapter is weighted by alpha / sqrt(rank)."""
    targets: Literal["all", "attention"] = "all"
    """Layers with an adapter: all linear ones, or only queries and values (attention, peft's default for the paper's
    models)."""
    embeddings: bool = False
    """Whether the input embedding has an adapter, too."""
    retain_kl_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the KL divergence from the baseline on the pairs about axes that `axes` leaves out."""
    max_length: Annotated[int, Field(gt=3)] = 256
    """Maximum number of tokens of a text; longer texts are cut into stretches."""
    epochs: Annotated[int, Field(gt=0)] = 3
    """Maximum number of passes over the texts."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of AdamW; None is 5e-4 for an adapter (2e-4 for OPT) and 2e-5 for all weights."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of the steps in which the learning rate rises."""
    warmup_steps: Annotated[int, Field(gt=0)] | None = None
    """Number of steps in which the learning rate rises, instead of `warmup_ratio`; at most half of all steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Fraction, times the learning rate, by which AdamW shrinks the weights in a step."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient of a step; larger gradients are scaled down to it."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Number of texts per batch."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 1
    """Number of batches per optimizer step."""
    batch_tokens: Annotated[int, Field(gt=0)] = 2048
    """Maximum number of tokens computed at once."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Precision of matrix products; auto is bf16 on GPUs that have it."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the texts held out to evaluate each epoch; the weights of the best epoch are used. 0 trains on all
    texts, and uses the last epoch."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Epochs without a lower held-out loss before training ends; 0 never ends early."""
    seed: int = 0
    """Seed of the held-out texts, new weights, the order of batches and the random control."""
    device: str | None = None
    """Device of the training; None is the model's own."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        if self.strength == "auto" and self.neutral is None:
            raise SettingsError(
                "strength=auto keeps the perplexity of neutral texts under a limit: set neutral= (a .txt or .jsonl "
                "file, datasets:NAME; demo:texts for the demo)"
            )
        if self.tuned is not None and (self.text is not None or self.axes):
            raise SettingsError("tuned= is an existing fine-tune: leave text= and axes= out")
        if self.loss == "continuation" and self.text is not None:
            raise SettingsError("loss=continuation is for training data with pairs: leave text= out, or set loss=all")
        if isinstance(self.strength, tuple) and len(self.strength) != self._count:
            raise SettingsError(
                f"{len(self.strength)} strengths for {self._count} vectors: set one each, or one for all"
            )

    @property
    def _count(self) -> int:
        return len(self.text) if isinstance(self.text, tuple) else 1

    @property
    def seeded(self) -> bool:
        """Whether anything is drawn: not with an existing fine-tune, unless a control or a strength is."""
        return self.tuned is None or self.control == "random" or self.strength == "auto"

    # ------------------------------------------------------------------------------------------- what is asked

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that is not local and causal or is quantised, or missing biased texts.

        Biased texts come from a source, the training data, or an existing fine-tune.
        """
        from evenhand.training import trainable

        reason = super().unsupported_reason(model, data) or trainable.unsupported_reason(self.name, model, masked=False)
        return reason or self._unlearnable(data)

    def _unlearnable(self, data: TrainData | None) -> str:
        """Return why there is nothing to fine-tune on, or "" if there is."""
        if self.tuned is not None or self.text is not None:
            return ""
        if self.loss == "continuation" or self.axes:
            if data is not None and data.pairs:
                return ""
            what = "axes=" if self.axes else "loss=continuation"
            return f"{self.name}({what}) needs training data with pairs: train= of compare, data= of apply"
        if data is not None and (data.texts or data.pairs):
            return ""
        return (
            f"{self.name} needs biased texts: its setting text= (a .txt or .jsonl file, datasets:NAME), training data "
            "with texts or pairs (train= of compare, --train on the command line, data= of apply), or tuned="
        )

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Make the vectors, or find earlier ones, and subtract them from a copy of the model.

        Raises:
            SettingsError: There are too few texts, the model cannot be edited, or no strength is within the limit.
            DataError: The texts cannot be read.
        """
        reason = self.unsupported_reason(model, data)
        if reason:
            raise SettingsError(reason)
        data = data or TrainData()
        pairs, validation = self._divided(data.pairs)
        made = self._vectors(model, data, pairs, validation)
        return self._negated(model, made, validation)

    def prepared(self, model: Model, data: TrainData) -> Any:
        """Not used, since a vector is made of each source of texts (`_vectors`)."""
        raise NotImplementedError

    def export(self, model: Model, folder: str | Path, data: TrainData | None = None, *, whole: bool = False) -> Path:
        """Write the biased fine-tunes (adapters, or whole models) and a recipe with which mergekit subtracts them.

        Args:
            model: Model of the vectors; the recipe names it by its folder or hub name.
            folder: Target folder.
            data: As for `apply`.
            whole: Write whole models in float32 instead of adapters. mergekit merges an adapter in the precision of
                the base's file, unless it is given --lora-merge-dtype float32.

        Returns:
            The recipe's file.

        Raises:
            SettingsError: As `apply`; or the strength has not been chosen, or the model has no name.
        """
        from evenhand.methods.unlearning import _recipe as recipe
        from evenhand.methods.unlearning._negation import by_layer, is_named, plain

        if self.strength == "auto":
            raise SettingsError("a recipe needs a strength: apply the method, and set the one that it chose")
        reason = self.unsupported_reason(model, data)
        if reason or not is_named(model):
            raise SettingsError(reason or f"{model.name} has no folder or hub name for a recipe: save it first")
        data = data or TrainData()
        vectors = [made.vector for made in self._vectors(model, data, list(data.pairs), [])]
        base, tokenizer = plain(model.weights.module), model.weights.tokenizer
        layers = int(base.config.get_text_config().num_hidden_layers)
        factors = [by_layer(s, self.per_layer, self.outside, layers) for s in self._each(self.strength, len(vectors))]
        place = Path(folder).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        name = str(base.config._name_or_path or model.source)
        return recipe.write(place, base, tokenizer, name, vectors, factors, named=True, whole=whole)

    @staticmethod
    def _each(strength: float | tuple[float, ...], count: int) -> tuple[float, ...]:
        return strength if isinstance(strength, tuple) else (strength,) * count

    # ------------------------------------------------------------------------------------------------ vectors

    def _divided(self, pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Return pairs to train on, and those of the axes on which the strength is chosen."""
        own = [p for p in pairs if not self.axes or p.axis in self.axes]
        if self.axes and not own:
            known = ", ".join(sorted({p.axis for p in pairs}))
            raise SettingsError(f"no pairs about {', '.join(self.axes)}; the training data has: {known}")
        if self.strength != "auto" or not own:
            return list(pairs), []
        from evenhand.training.holding_out import hold_out

        _, held = hold_out(sorted(set(own), key=repr), _texts_of, HELD_PAIRS, self.seed, "validation")
        apart = set(held)
        return [p for p in pairs if p not in apart], held

    def _vectors(self, model: Model, data: TrainData, pairs: list[Pair], validation: list[Pair]) -> list[Made]:
        if self.tuned is not None:
            from evenhand.methods.unlearning._tuned_folder import vector_of_folder

            folder = Path(self.tuned).expanduser()
            if not folder.is_dir():
                raise SettingsError(f"tuned={self.tuned!r} is not a folder with an adapter or a model")
            vector = vector_of_folder(folder, model.weights.module)
            return [Made(vector, "", None)]
        if self.text is not None:
            from evenhand.data import text_source

            sources = self.text if isinstance(self.text, tuple) else (self.text,)
            every = [text_source.texts(source, self.max_texts) for source in sources]
            return [self._trained(model, texts, [], source, None) for texts, source in zip(every, sources, strict=True)]
        if data.texts and self.loss == "all" and not self.axes:
            held = {_joined(p) for p in validation}
            texts = [t for t in data.texts if _normal(t) not in held][: self.max_texts]
            return [self._trained(model, texts, [], "training data", data.overlap_removed.texts)]
        return [self._trained(model, [], pairs[: self.max_texts], "training data", data.overlap_removed.pairs)]

    def _trained(
        self, model: Model, texts: Sequence[str], pairs: Sequence[Pair], source: str, removed: int | None
    ) -> Made:
        """Return a vector from texts or pairs, made once."""
        from evenhand.methods.unlearning._task_vectors import TaskVector

        examples = self._examples(model, texts, pairs)
        own = {tuple(e.ids) for e in examples if not e.kept}
        if len(own) < LEAST_TEXTS:
            raise SettingsError(f"{self.name} needs at least {LEAST_TEXTS} different texts, not {len(own)} ({source})")
        overlap = OverlapRemoved(texts=removed)  # records count texts, including those of pairs
        with self.trained_once(model, Lesson(texts, pairs, examples), overlap) as kept:
            return Made(TaskVector.load(kept.folder), source, saved.learned_of(kept.folder, self.name))

    def content(self, prepared: Lesson) -> Sequence[object]:
        """Return the texts and pairs, and the axes that determine which pairs are unlearned."""
        pairs = [in_first_names(p) for p in prepared.pairs]
        return [[list(prepared.texts), pairs, list(self.axes) if pairs else []]]

    def made_with(self, model: Model, prepared: Lesson) -> list[str | int]:
        """Return the training device of a vector."""
        return made_with(model, device=self.device, precision=self.precision)

    def _examples(self, model: Model, texts: Sequence[str], pairs: Sequence[Pair]) -> list[Example]:
        from evenhand.methods.unlearning._fine_tuning import pair_examples, text_examples

        tokenizer = model.weights.tokenizer
        length = min(self.max_length, model.context_length)
        out = text_examples(texts, tokenizer, length)
        for kept in (False, True):
            some = [p for p in pairs if (bool(self.axes) and p.axis not in self.axes) is kept]
            out += pair_examples(some, tokenizer, length, whole=self.loss == "all", kept=kept)
        return out

    def train(self, model: Model, prepared: Lesson, folder: Path) -> Fitted:
        """Fine-tune a copy of the model, and return the difference."""
        from evenhand.methods.unlearning._fine_tuning import divide, fit

        module = model.weights.module
        train, held = divide(prepared.examples, self.validation_fraction, self.seed)
        plan = self._plan(module, len(train))
        made = fit(module, train, held, plan, folder, "fine-tuning on biased texts")
        data = replace(made.training["data"], hash=digest(*self.content(prepared)))
        precision = resolved_precision(self.precision, str(plan.schedule.device))
        return Fitted(None, {**made.training, "data": data, "precision": precision}, made.vector)

    def check(self, model: Model, made: Fitted) -> None:
        """Do nothing: the biased fine-tune is never used, and the result is checked once it is made."""

    def keep(self, model: Model, made: Fitted, record: TrainingRecord, folder: Path) -> None:
        """Save the vector, and finally the record of its training."""
        made.more.save(folder)
        saved.write_learned(folder, record)

    def _plan(self, module: Any, texts: int) -> Plan:
        from evenhand.methods.unlearning._fine_tuning import Plan
        from evenhand.training.loop import Schedule
        from evenhand.training.lora import Adapter

        usual = RATES.get(str(module.config.model_type), USUAL_RATE) if self.fit == "lora" else WHOLE_RATE
        steps = self.epochs * -(-texts // (self.batch_size * self.gradient_accumulation_steps))
        warmup_ratio = self.warmup_ratio if self.warmup_steps is None else min(0.5, self.warmup_steps / steps)
        schedule = Schedule.of(
            self,
            learning_rate=self.learning_rate or usual,
            device=self.device or str(module.device),
            precision=self.precision,
        )
        schedule = replace(schedule, warmup_ratio=warmup_ratio)
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        adapter = Adapter(self.rank, alpha, self.dropout, self.rslora, self.targets, self.embeddings)
        return Plan(self.fit, adapter, self.batch_size, self.batch_tokens, self.retain_kl_weight, schedule)

    # ---------------------------------------------------------------------------------------------- negation

    def _negated(self, model: Model, made: list[Made], validation: list[Pair]) -> Model:
        from evenhand.methods.unlearning._negation import plain
        from evenhand.methods.unlearning._task_vectors import random_like

        fitted = [one.vector for one in made]
        control = self.control == "random"
        vectors = [random_like(v, self.seed + n) for n, v in enumerate(fitted)] if control else fitted
        base = plain(model.weights.module)
        facts: dict[str, Any] = {"vectors": [self._vector_facts(one) for one in made]}
        strength: float | tuple[float, ...]
        if self.strength == "auto":
            # a control has the strength of what it controls for
            chosen, facts["tried"] = self._chosen(model, base, fitted, validation)
            strength = chosen
        else:
            strength = self.strength
        facts["strength"] = strength
        record = made[0].record if len(made) == 1 else None
        known = {} if record is None else {name: getattr(record, name) for name in OF_ONE_VECTOR}
        if record is not None and isinstance(self.text, str):
            known["data"] = replace(record.data, source=self.text)
        return self._result(model, base, vectors, strength, record_of(self, model, **known, results=facts))

    def _vector_facts(self, made: Made) -> dict[str, Any]:
        """Return the facts about one vector for reports."""
        if made.record is None:
            return {"tuned": self.tuned, "norm": made.vector.norm()}
        return {"source": made.source, **{k: v for k, v in made.record.facts().items() if k not in ("method", "base")}}

    def _chosen(
        self, model: Model, base: Any, vectors: Sequence[TaskVector], validation: list[Pair]
    ) -> tuple[float, list[dict[str, Any]]]:
        from evenhand.data import text_source
        from evenhand.methods.unlearning._choosing import choose

        neutral = text_source.texts(str(self.neutral), self.max_texts)
        strength, tried = choose(
            lambda s: self._result(model, base, vectors, s, None), self.strengths, neutral, validation, self.limit
        )
        return strength, [t.row for t in tried]

    def _result(
        self,
        model: Model,
        base: Any,
        vectors: Sequence[TaskVector],
        strength: float | tuple[float, ...],
        record: TrainingRecord | None,
    ) -> Model:
        """The model with so much of the vectors taken out; without a record it is only tried."""
        from evenhand.methods.unlearning._negation import adapted, by_layer, is_named, merged
        from evenhand.methods.unlearning._result import edited
        from evenhand.methods.unlearning._task_vectors import total

        layers = int(base.config.get_text_config().num_hidden_layers)
        own = self._each(strength, len(vectors))
        factors = [by_layer(-s, self.per_layer, self.outside, layers) for s in own]
        change = total(list(zip(vectors, factors, strict=True)))
        name, remedy = f"{model.name}+{self.spec}", f"take a smaller strength than {strength}"
        holds = change.low_rank and bool(change.changes)
        if self.form == "adapter" and change.changes and not holds:
            raise SettingsError("an adapter cannot hold a change of all weights: take form=merged, or leave form= out")
        if holds and self.form != "merged":
            module = adapted(base, change, named=is_named(model))
            return edited(module, model, name, _with_results(record, form="adapter"), remedy=remedy)
        module, lost = merged(base, change)
        return edited(module, model, name, _with_results(record, form="merged", rounded_away=lost), remedy=remedy)


class Made(NamedTuple):
    """A vector and where it comes from."""

    vector: TaskVector
    source: str
    """What was trained on; "" of a fine-tune that was there."""
    record: TrainingRecord | None
    """Hash of its training; None if unknown."""


def _with_results(record: TrainingRecord | None, **more: Any) -> TrainingRecord | None:
    return None if record is None else replace(record, results={**record.results, **more})


def _texts_of(pair: Pair) -> list[tuple[str, str, str]]:
    """Both texts of a pair, for `hold_out`."""
    return [(repr(pair.prompt), side, pair.suffix) for side in (pair.stereotyped, pair.counter_stereotyped)]


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _joined(pair: Pair) -> str:
    prompt = pair.prompt if isinstance(pair.prompt, str) else ""
    return _normal(f"{prompt}{pair.stereotyped}{pair.suffix}")
