"""Share settings and training steps among methods that distil a language model on texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import made_with, resolved_precision
from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Model, TrainData, TrainedOn, settings
from evenhand.training.trained_method import Fitted, TrainedMethod

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.methods.distillation._batches import Gate, Ids
    from evenhand.methods.distillation._losses import Rule
    from evenhand.training.loop import Schedule

LEAST_TEXTS = 20
"""Minimum number of different texts for training and evaluation."""


@settings
class TextTraining(TrainedMethod):
    """Base of methods that train a student of the same kind as the given model on texts."""

    training_version: ClassVar[int] = 2
    not_in_key: ClassVar[frozenset[str]] = frozenset({"device", "text", "max_texts"})
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    added_later: ClassVar[frozenset[str]] = frozenset(
        {"weight_decay", "max_grad_norm", "batch_size", "learning_rate_decay", "keep_epoch"}
    )
    renamed: ClassVar[Mapping[str, str]] = {
        "warm_up": "warmup_ratio",
        "accumulate": "gradient_accumulation_steps",
        "held_out": "validation_fraction",
        "most_texts": "max_texts",
    }

    masking: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of tokens that a masked model has to predict: 80 % masked, 10 % replaced, 10 % unchanged."""
    text: str | None = None
    """Texts to train on: a .txt or .jsonl file, datasets:NAME[:SPLIT[:COLUMN]] or demo:texts; None takes those of the
    training data. Unlike those, they are not checked for overlap with what a benchmark asks."""
    max_texts: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of texts, of which the first are used; None uses all."""
    max_length: Annotated[int, Field(gt=3)] = 256
    """Maximum number of tokens of a text; longer texts are cut into stretches."""
    epochs: Annotated[int, Field(gt=0)] = 10
    """Maximum number of passes over the texts."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of AdamW; None is 1e-3 for an adapter, and otherwise 5e-4."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of the steps in which the learning rate rises."""
    learning_rate_decay: Literal["linear", "none"] = "linear"
    """Whether the learning rate falls to 0 over the training, or stays at its peak."""
    batch_tokens: Annotated[int, Field(gt=0)] = 512
    """Maximum number of tokens in a batch, padding included."""
    batch_size: Annotated[int, Field(gt=0)] | None = None
    """Number of texts per batch, in random order whatever their lengths; None fills batches by `batch_tokens`."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 1
    """Number of batches per optimizer step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Fraction, times the learning rate, by which AdamW shrinks the weights in a step."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Maximum norm of the gradient of a step; larger gradients are scaled down to it. 0 disables scaling."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Precision of matrix products; auto is bf16 on GPUs that have it."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the texts held out to evaluate each epoch; the weights of the best epoch are kept. 0 trains on all
    texts, and keeps the last epoch."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Epochs without a lower held-out loss before training ends; 0 never ends early."""
    keep_epoch: Literal["best", "last"] = "best"
    """Whether the weights of the best epoch on held-out texts are kept, or those of the last trained epoch."""
    seed: int = 0
    """Seed of the held-out texts, masked tokens, new weights and the order of batches."""
    device: str | None = None
    """Device on which the student is trained; None is the model's own."""

    # ------------------------------------------------------------------------------------------ what is asked

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that is not local, causal or masked, or is quantised, or missing texts."""
        from evenhand.training import trainable

        reason = super().unsupported_reason(model, data) or trainable.unsupported_reason(self.name, model, masked=True)
        if model is not None:
            reason = reason or self._unfit(model)
        if reason or self.text is not None or (data is not None and data.texts):
            return reason
        return (
            f"{self.name} needs texts to learn: its setting text= (a .txt or .jsonl file, datasets:NAME, demo:texts) "
            "or training data with texts (train= of compare, --train on the command line, data= of apply)"
        )

    def _unfit(self, model: Model) -> str:
        """Return why a trainable model is unsuitable, such as its architecture; "" by default."""
        return ""

    def prepared(self, model: Model, data: TrainData) -> Sequence[str]:
        """Read the texts.

        Raises:
            SettingsError: There are too few texts, or the model cannot be trained by this rule.
            DataError: The texts cannot be read.
        """
        from evenhand.data import text_source

        if self.text is not None:
            texts: Sequence[str] = text_source.texts(self.text, self.max_texts)
        else:
            texts = data.texts[: self.max_texts]
        if len(set(texts)) < LEAST_TEXTS:
            raise SettingsError(f"{self.name} needs at least {LEAST_TEXTS} different texts, not {len(set(texts))}")
        self.check_model(model)
        return texts

    def content(self, prepared: Sequence[str]) -> Sequence[object]:
        """Return the content of what settings only name, and the texts."""
        from evenhand.data import text_source

        return [self.named_hash, text_source.digest(prepared)]

    def made_with(self, model: Model, prepared: Sequence[str]) -> list[str | int]:
        """Return the student's training device."""
        return made_with(model, device=self.device, precision=self.precision)

    # ------------------------------------------------------------------------------------------ what methods say

    @property
    def named_hash(self) -> str:
        """Hash the content of what a setting only names, such as a file of rules; nothing by default."""
        return ""

    def check_model(self, model: Model) -> None:
        """Refuse a model that does not have what the method needs, before anything else.

        Raises:
            SettingsError: It cannot.
        """

    def _schedule(self, module: Any, learning_rate: float) -> Schedule:
        """Return the length and learning rates of the training.

        Args:
            module: The model; the student is trained on its device unless another one is set.
            learning_rate: Learning rate if the settings give none.
        """
        from evenhand.training.loop import Schedule

        made = Schedule.of(
            self,
            learning_rate=self.learning_rate or learning_rate,
            device=self.device or str(module.device),
            precision=self.precision,
        )
        return replace(made, learning_rate_decay=self.learning_rate_decay)

    def _trained_on(self, texts: Sequence[str], training: int, validation: int) -> TrainedOn:
        """Describe the texts, for the record."""
        from evenhand.data import text_source

        content = text_source.digest(texts)
        return TrainedOn(unit="texts", source=self.text, hash=content, training=training, validation=validation)

    def _encoded(self, model: Model, texts: Sequence[str]) -> tuple[list[Ids], Callable[[int], list[tuple[int, ...]]]]:
        """Return the texts in tokens, long ones in stretches, and for `hold_out` a stretch's whole text.

        Raises:
            SettingsError: There are too few texts.
        """
        from evenhand.methods.distillation._batches import stretches
        from evenhand.models.architecture import context_of

        (module, tokenizer), causal = model.weights, model.architecture == "causal"
        context = model.context_length if causal else context_of(module.config, tokenizer)
        made = stretches(texts, tokenizer, min(self.max_length, context), causal=causal)
        if len({tuple(ids) for _, ids in made}) < LEAST_TEXTS:
            raise SettingsError(f"{self.name}: fewer than {LEAST_TEXTS} texts contain tokens to train on; add texts")
        return [ids for _, ids in made], lambda n: [made[n][0]]


@settings
class TextDistillation(TextTraining):
    """Base of methods whose student learns its teacher's predictions on texts, under a rule."""

    added_later: ClassVar[frozenset[str]] = frozenset({"watch"})
    renamed: ClassVar[Mapping[str, str]] = {"locality": "retain_kl_weight"}

    student: Literal["lora", "copied", "random"] = "lora"
    """What the student is. lora: the model itself with an adapter, the teacher being the same without it (a masked
    model's adapter is merged into its weights). copied: some of its layers, evenly spaced. random: fewer layers and new
    weights (as in the paper)."""
    layers: Annotated[int, Field(gt=0)] | None = None
    """Number of layers of a copied or random student; None is half of the teacher's: 6 of 12 in the paper."""
    rank: Annotated[int, Field(gt=0)] = 16
    """Rank of the LoRA adapter, whose alpha is twice that."""
    kl: Annotated[float, Field(ge=0)] = 5.0
    """Weight of the divergence from the teacher under the rule, times the temperature squared."""
    hard: Annotated[float, Field(ge=0)] = 2.0
    """Weight of the cross-entropy on the text itself: on masked tokens, or on each next token."""
    cosine: Annotated[float, Field(ge=0)] = 0.0
    """Weight of 1 minus the cosine between the last hidden states. Off by default, as it preserves what a rule is to
    change."""
    retain_kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence from the teacher over the vocabulary without the rule's tokens (ours), times the
    temperature squared."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Temperature of teacher and student in the divergences."""
    rule_masking: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    """Fraction of the tokens that the rule is about, which are few, that a masked model has to predict; None is
    `masking` (as in the paper)."""
    compared: Literal["hidden", "all"] = "hidden"
    """Where a masked student is compared with its teacher: at the tokens to be predicted (hidden), or at all (as in the
    paper). A causal student is compared at every next token."""
    watch: Literal["loss", "pseudo_perplexity"] = "loss"
    """What determines the best epoch on held-out texts, and when `patience` ends: the whole loss, or exp of the
    cross-entropy on the text itself (at masked tokens for a masked model)."""

    def __post_init__(self) -> None:
        """Refuse settings that teach nothing or contradict one another."""
        if not self.kl and not self.hard:
            raise SettingsError("kl=0 and hard=0: nothing would be learned; set one of them above 0")
        if self.watch == "pseudo_perplexity" and not self.hard:
            raise SettingsError(
                "watch=pseudo_perplexity is about the text itself, which hard=0 leaves out: set watch=loss"
            )
        if self.layers is not None and self.student == "lora":
            raise SettingsError("layers= is for copied and random students; student=lora keeps all: leave it out")

    # ------------------------------------------------------------------------------------- what methods say

    @abstractmethod
    def lesson(self, tokenizer: PreTrainedTokenizerBase, *, causal: bool) -> tuple[Rule, Gate, dict[str, Any]]:
        """Return the rule, where it acts, and facts about both for reports.

        Raises:
            SettingsError: The rule cannot be expressed in this tokenizer.
        """

    @property
    @abstractmethod
    def rule_hash(self) -> str:
        """Hash the content of what a setting only names, such as a file of rules."""

    @property
    def named_hash(self) -> str:
        """Hash the content of the rule."""
        return self.rule_hash

    def check_model(self, model: Model) -> None:
        """Check that the rule can be expressed in the model's tokenizer."""
        self.lesson(model.weights.tokenizer, causal=model.architecture == "causal")

    def train(self, model: Model, prepared: Sequence[str], folder: Path) -> Fitted:
        """Train a student on texts under the rule."""
        from evenhand.methods.distillation._batches import Masking, Text, hiding, predicting
        from evenhand.methods.distillation._learning import HELD_OUT, Keeping, Lesson, learn
        from evenhand.methods.distillation._losses import Shares
        from evenhand.training.holding_out import hold_out
        from evenhand.training.packing import layout_of
        from evenhand.training.students import build

        module, tokenizer = model.weights
        causal = model.architecture == "causal"
        rule, gate, facts = self.lesson(tokenizer, causal=causal)
        ids, texts_of = self._encoded(model, prepared)
        named = model.unedited_source is not None
        student = build(self.student, module, layers=self.layers, rank=self.rank, seed=self.seed, named=named)
        train, held = hold_out(range(len(ids)), texts_of, self.validation_fraction, self.seed)
        often = self.masking if self.rule_masking is None else self.rule_masking
        masking = Masking(self.masking, often, frozenset(rule.tokens.tolist()))
        words = rule.words

        def drawn(which: Sequence[int], epoch: int) -> list[Text]:
            some = [ids[n] for n in which]
            if causal:
                read = predicting(some, gate)
                return words.marked(read) if words is not None else read
            return hiding(some, gate, masking, tokenizer, f"{self.seed}/{epoch}")

        lesson = Lesson(
            lambda epoch: drawn(train, epoch),
            drawn(held, HELD_OUT),
            layout_of(student, module, share=False) if causal else None,
            int(tokenizer.pad_token_id or 0),
            self.batch_tokens,
            self.compared == "hidden",
            self.batch_size,
        )
        if words is not None:
            every = drawn(range(len(ids)), HELD_OUT)
            words.read(
                module, every, layout_of(module, share=False), int(tokenizer.pad_token_id or 0), self.batch_tokens
            )
            facts |= {"places_of_words": words.starts}
        shares = Shares(self.kl, self.hard, self.cosine, self.retain_kl_weight, self.temperature)
        schedule = self._schedule(module, 1e-3 if self.student == "lora" else 5e-4)
        teacher = None if self.student == "lora" else module
        keeping = Keeping(self.watch, last=self.keep_epoch == "last")
        made = learn(student, teacher, lesson, rule, shares, schedule, folder, keeping)
        if self.student != "lora":  # it was trained in float32; an adapter stays so
            for p in student.parameters():
                p.data = p.data.to(module.dtype)
        return Fitted(
            student,
            {
                "data": self._trained_on(prepared, len(train), len(held)),
                "precision": resolved_precision(self.precision, str(schedule.device)),
                "epochs": len(made.curve) - 1,  # before the first epoch there is a row, too
                "best_epoch": made.best,
                "curve": tuple(made.curve),
                "seconds": round(made.seconds, 1),
                "results": {"teacher": model.name, "trained_tokens": made.tokens, **facts},
            },
        )
