"""What methods that distil a language model on texts share: their settings, and the way from a model to its student."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import artefact, made_with
from evenhand.core.hashing import digest
from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Method, Model, TrainData, settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.methods.distillation._batches import Gate, Ids
    from evenhand.methods.distillation._losses import Rule

LEAST_TEXTS = 20
"""Fewer different texts teach nothing, and say nothing of what was taught."""
VERSION = 1
"""Of what a training does; part of the name that a trained student is kept under."""


@settings
class TextTraining(Method):
    """A student that learns on texts, from a model that is there; it is a model of the same kind."""

    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})

    masking: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that a masked model is to find again: 80 % hidden, 10 % replaced, 10 % left."""
    text: str | None = None
    """Texts to learn from: a .txt or .jsonl file, datasets:NAME[:SPLIT[:COLUMN]] or demo:texts; None takes those of the
    training data. Unlike these, they are not compared with what a benchmark asks."""
    most_texts: Annotated[int, Field(gt=0)] | None = None
    """How many texts at most, the first ones; None takes all."""
    max_length: Annotated[int, Field(gt=3)] = 256
    """Most tokens of a text; longer ones are cut into stretches."""
    epochs: Annotated[int, Field(gt=0)] = 10
    """Most passes over the texts."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak of AdamW; None is 1e-3 for an adapter, and else 5e-4."""
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises."""
    batch_tokens: Annotated[int, Field(gt=0)] = 512
    """Most tokens in a batch, padding included."""
    accumulate: Annotated[int, Field(gt=0)] = 1
    """Batches a step."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Of the products; auto is bf16 on GPUs that have it."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the texts on which each epoch is judged; the weights of the best one are kept."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Epochs without a lower held-out loss before training ends; 0 never ends early."""
    seed: int = 0
    """Of held-out texts, hidden tokens, new weights and the order of batches."""
    device: str | None = None
    """Where the student is trained; None is where the model lies."""

    # ------------------------------------------------------------------------------------------ what is asked

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """The model has to be here, causal or masked, and not quantised; and there have to be texts to learn from."""
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
        """What stands against a model that can be trained, such as its architecture; "" by default."""
        return ""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Train a student on the texts; it is a model of the same kind, and the given one stays as it is.

        Raises:
            SettingsError: No texts, or too few; a model that cannot be trained, or not by this rule.
            DataError: The texts cannot be read.
        """
        from evenhand.data import text_source
        from evenhand.training.students import open_distilled

        reason = self.unsupported_reason(model, data)
        if reason:
            raise SettingsError(reason)
        texts = self._texts(data)
        self.check(model)
        decisive = {key: value for key, value in self.settings.items() if key not in ("device", "text", "most_texts")}
        how = made_with(model, device=self.device, precision=self.precision)
        key = digest(self.name, VERSION, how, model.fingerprint, decisive, self.named_hash, text_source.digest(texts))
        with artefact(key, lambda folder: self._train(model, texts, folder)) as folder:
            return open_distilled(folder, model, f"{model.name}+{self.spec}")

    def _texts(self, data: TrainData | None) -> Sequence[str]:
        from evenhand.data import text_source

        if self.text is not None:
            texts: Sequence[str] = text_source.texts(self.text, self.most_texts)
        else:
            texts = (data.texts if data else ())[: self.most_texts]
        if len(set(texts)) < LEAST_TEXTS:
            raise SettingsError(f"{self.name} needs at least {LEAST_TEXTS} different texts, not {len(set(texts))}")
        return texts

    # ------------------------------------------------------------------------------------------ what methods say

    @property
    def named_hash(self) -> str:
        """Hash of what a setting only names, such as a file of rules; nothing by default."""
        return ""

    def check(self, model: Model) -> None:
        """Refuse what cannot be had of a model, before all else.

        Raises:
            SettingsError: It cannot.
        """

    @abstractmethod
    def _train(self, model: Model, texts: Sequence[str], folder: Path) -> None:
        """Leave in a folder what `evenhand.training.students.keep` writes."""

    def _encoded(self, model: Model, texts: Sequence[str]) -> list[Ids]:
        from evenhand.methods.distillation._batches import encoded
        from evenhand.models.architecture import context_of

        (module, tokenizer), causal = model.weights, model.architecture == "causal"
        context = model.context_length if causal else context_of(module.config, tokenizer)
        ids = encoded(texts, tokenizer, min(self.max_length, context), causal=causal)
        if len({tuple(row) for row in ids}) < LEAST_TEXTS:
            raise SettingsError(f"{self.name}: fewer than {LEAST_TEXTS} texts have tokens to learn from")
        return ids


@settings
class TextDistillation(TextTraining):
    """A student that learns on texts what its teacher says there, under a rule."""

    student: Literal["lora", "copied", "random"] = "lora"
    """lora is the model itself with an adapter, the teacher being the same without it (a masked model's adapter ends up
    in its weights); copied takes some of its layers, evenly spaced; random has fewer layers and new weights (the
    paper's)."""
    layers: Annotated[int, Field(gt=0)] | None = None
    """Layers of a copied or random student; None is half of the teacher's: of the paper's 12 its 6."""
    rank: Annotated[int, Field(gt=0)] = 16
    """Of the LoRA adapter, whose alpha is twice that."""
    kl: Annotated[float, Field(ge=0)] = 5.0
    """Weight of the divergence from the teacher under the rule, times the temperature squared."""
    hard: Annotated[float, Field(ge=0)] = 2.0
    """Weight of the cross-entropy of the text itself: of the hidden tokens, or of each next one."""
    cosine: Annotated[float, Field(ge=0)] = 0.0
    """Weight of one less the cosine between the last hidden states. It holds what a rule is to move: off by default."""
    locality: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the teacher over the vocabulary without the rule's tokens (ours), times the
    temperature squared."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Of teacher and student in the divergences."""
    rule_masking: Annotated[float, Field(gt=0, le=1)] | None = 0.5
    """The same for tokens that the rule is about, which are few; None is `masking` (the paper's)."""
    compared: Literal["hidden", "all"] = "hidden"
    """Where a masked student is compared with its teacher: at the tokens that are to be found, or at all (the paper's).
    A causal one is compared at every next token."""

    def __post_init__(self) -> None:
        """Refuse settings that teach nothing or contradict one another."""
        if not self.kl and not self.hard:
            raise SettingsError("kl=0 and hard=0: nothing would be learned; give one of them a weight")
        if self.layers is not None and self.student == "lora":
            raise SettingsError("layers= is of copied and random students; student=lora keeps all: leave it out")

    # ------------------------------------------------------------------------------------- what methods say

    @abstractmethod
    def lesson(self, tokenizer: PreTrainedTokenizerBase, *, causal: bool) -> tuple[Rule, Gate, dict[str, Any]]:
        """The rule, where it acts, and facts of both for reports.

        Raises:
            SettingsError: It cannot be had in this tokenizer.
        """

    @property
    @abstractmethod
    def rule_hash(self) -> str:
        """Hash of what a setting only names, such as a file of rules."""

    @property
    def named_hash(self) -> str:
        """Of the rule."""
        return self.rule_hash

    def check(self, model: Model) -> None:
        """The rule has to be there in the model's tokenizer."""
        self.lesson(model.weights.tokenizer, causal=model.architecture == "causal")

    def _train(self, model: Model, texts: Sequence[str], folder: Path) -> None:
        from evenhand.methods.distillation._batches import Masking, Text, hiding, predicting
        from evenhand.methods.distillation._learning import HELD_OUT, Lesson, divide, learn
        from evenhand.methods.distillation._losses import Shares
        from evenhand.training.checkpoints import Checkpoints
        from evenhand.training.loop import Schedule
        from evenhand.training.packing import layout_of
        from evenhand.training.students import build, keep

        module, tokenizer = model.weights
        causal = model.architecture == "causal"
        rule, gate, facts = self.lesson(tokenizer, causal=causal)
        ids = self._encoded(model, texts)
        named = model.unedited_source is not None
        student = build(self.student, module, layers=self.layers, rank=self.rank, seed=self.seed, named=named)
        train, held = divide(len(ids), self.held_out, self.seed, [str(row) for row in ids])
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
            lambda epoch: drawn(train, epoch), drawn(held, HELD_OUT),
            layout_of(student, module) if causal else None, int(tokenizer.pad_token_id or 0), self.batch_tokens,
            self.compared == "hidden",
        )  # fmt: skip
        if words is not None:
            every = drawn(range(len(ids)), HELD_OUT)
            words.read(module, every, layout_of(module), int(tokenizer.pad_token_id or 0), self.batch_tokens)
            facts |= {"places_of_words": words.starts}
        shares = Shares(self.kl, self.hard, self.cosine, self.locality, self.temperature)
        schedule = Schedule(
            epochs=self.epochs, learning_rate=self.learning_rate or (1e-3 if self.student == "lora" else 5e-4),
            warm_up=self.warm_up, accumulate=self.accumulate, patience=self.patience, seed=self.seed,
            device=self.device or str(module.device), precision=self.precision,
        )  # fmt: skip
        teacher = None if self.student == "lora" else module
        made = learn(student, teacher, lesson, rule, shares, schedule, folder)
        Checkpoints(folder, {}).remove()
        facts |= {
            "method": self.spec,
            "teacher": model.name,
            "texts": len(train),
            "held_out_texts": len(held),
            "trained_tokens": made.tokens,
            "seconds": round(made.seconds, 1),
            "best_epoch": made.best,
            "curve": made.curve,
        }
        if self.student != "lora":  # it was trained in float32; an adapter stays so
            for p in student.parameters():
                p.data = p.data.to(module.dtype)
        keep(student, tokenizer, facts, folder)
