"""`pairwise`: a weighted sum of losses on pairs, texts and questions, trained until no side of the pairs is preferred.

In each pair, the counter-stereotyped side is "chosen" (w) and the stereotyped one "rejected" (l). S is the sum and M
the mean per token of a continuation's negative log-likelihood, and "ref" the model without its adapter, scored once.

| weight | loss | source |
|---|---|---|
| `dpo_weight` | softplus(-beta ((S_ref(w) - S(w)) - (S_ref(l) - S(l)))) | Rafailov et al. 2023 (arXiv 2305.18290) |
| `npo_weight` | (2 / beta) softplus(-beta (S(l) - S_ref(l))) | Zhang et al. 2024 (arXiv 2404.05868) |
| `simnpo_weight` | (2 / beta) softplus(-beta (M(l) - delta)) | Fan et al. 2024 (arXiv 2410.07163) |
| `ga_weight` | -M(l); it diverges, and is a baseline only | gradient ascent |
| `margin_weight` | softplus(margin + M(w) - M(l)) | pairwise logistic loss |
| `gap_weight` | (M(l) - M(w))^2 | equalising, after debias_NLG (GeBNLP 2024) |
| `lm_weight`, `swapped_lm_weight` | M(w), M(l) | counterfactual data augmentation |
| `retain_lm_weight`, `retain_kl_weight` | M(text), KL(ref, model) per token of retained texts | Liu et al. 2025 |
| `reward_weight` | -sum of p(option) reward(option), + KL to ref | the limit of GRPO with infinitely many samples |

dpo, npo, simnpo and margin push past parity and reverse a bias; gap and lm with swapped_lm stop there. Hence the
default `stop=parity`, judged on validation pairs. Names of papers whose methods only look like such a sum (CAL, BBA,
MBIAS) are not presets here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import made_with, resolved_precision
from evenhand.core.hashing import digest
from evenhand.errors import SettingsError
from evenhand.interfaces import (
    Ability,
    Model,
    Pair,
    TrainData,
    TrainedOn,
    TrainingRecord,
    in_first_names,
    settings,
)
from evenhand.methods.unlearning._pairwise.preset_sources import PRESET_SOURCES
from evenhand.methods.unlearning._pairwise.terms import PAIR_TERMS, TEXT_TERMS
from evenhand.training.trained_method import Fitted, TrainedMethod

if TYPE_CHECKING:
    from evenhand.methods.unlearning._pairwise.objective import Objective
    from evenhand.methods.unlearning._pairwise.reading import Lesson, Rewarded, Row
    from evenhand.methods.unlearning._pairwise.run import Plan

MIN_PAIRS = 20
"""Minimum number of different pairs for training and evaluation."""
MIN_QUESTIONS = 20
Weight = Annotated[float, Field(ge=0)]

_NO_DPO = {"dpo_weight": 0.0}
_BIASUNLEARN = {
    **_NO_DPO,
    "npo_weight": 0.5,
    "lm_weight": 0.3,
    "retain_kl_weight": 0.2,
    "beta": 0.1,
    "rank": 8,
    "alpha": 16,
    "dropout": 0.1,
    "learning_rate": 4e-5,
    "warmup_ratio": 0.01,
    "steps": 1000,
    "batch_size": 4,
    "retain_batch_size": 28,
    "max_length": 100,
    "adversarial_fraction": 0.25,
    "swap": True,
    "check_steps": 10,
    "patience": 0,
    "stop": "parity",
    "tolerance": 2.0,
    "npo_form": "rows",
    "retain_kl_form": "kl",
    "measure": "probability",
    "targets": "all",
    "validation_fraction": 0.1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "precision": "no",
}
"""Values of BiasUnlearn's released run.sh and README, and the argparse defaults that both leave."""


@settings
class Pairwise(TrainedMethod):
    """Train an adapter on a weighted sum of pair losses until neither side of the pairs is preferred.

    Presets, with the sources of their values:

    - `dpo`: the loss and beta .1 of Rafailov et al. 2023; the rest is ours.
    - `cda`: cross-entropy of both sides in equal parts, as counterfactual data augmentation trains on texts and their
      group-swapped copies (Lu et al. 2018; Zmigrod et al. 2019). A pair's other side is that copy where the two sides
      differ in the group, as in Winogender or CrowS-Pairs; in StereoSet they differ in the attribute.
    - `equalise`: ours, after the two-sided losses of debias_NLG: gap 1, and .5 of each side's cross-entropy, without
      which both sides could become improbable together.
    - `npo`: beta .1, weight 1, and weight 1 of the retained cross-entropy (open-unlearning), here of the chosen sides,
      as without a loss on the same prompts the model answers with neither side.
    - `simnpo`: beta 4.5, delta 0, weight .125, retained cross-entropy 1 (open-unlearning).
    - `biasunlearn`: Liu et al. 2025 (arXiv 2509.25673) with the weights, rates and batches of the released scripts for
      GPT-2 (2e-5 for 7B models; its argparse says 1, 1, .2 where README and run.sh say .5, .3, .2); NPO of the
      sequences as in the paper; a quarter of the chosen sides joins what is forgotten; the rule of swapping. Ours:
      `swap` and `stop` use validation pairs, where the released code uses those that it reports; a check every
      10 steps, where the source checks every 50 and then ever more often; the probability instead of the count of
      preferred sides; the retained cross-entropy is of the same 4 pairs, where the source takes 28 others.
    - `biasunlearn_released`: the same as the code computes it: one sigmoid of the batch's mean nll per token, a
      cross-entropy for the KL (the same gradient), and the share of preferred sides per token. The code also averages
      that cross-entropy over padding; here it is not.
    - `expected_reward`: ours: multiple-choice rows with reward 1 for the right option, -.5 for "unknown" where a person
      is right, -1 for any other; beta .04 and 1e-5 are usual for GRPO with LoRA.
    """

    not_in_key: ClassVar[frozenset[str]] = frozenset({"axes", "max_pairs"})
    name: ClassVar[str] = "pairwise"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "dpo": {"dpo_weight": 1.0, "beta": 0.1},
        "cda": {**_NO_DPO, "lm_weight": 1.0, "swapped_lm_weight": 1.0},
        "equalise": {**_NO_DPO, "gap_weight": 1.0, "lm_weight": 0.5, "swapped_lm_weight": 0.5},
        "npo": {**_NO_DPO, "npo_weight": 1.0, "lm_weight": 1.0, "beta": 0.1},
        "simnpo": {**_NO_DPO, "simnpo_weight": 0.125, "lm_weight": 1.0, "simnpo_beta": 4.5, "simnpo_delta": 0.0},
        "biasunlearn": _BIASUNLEARN,
        "biasunlearn_released": {
            **_BIASUNLEARN,
            "npo_form": "batch_mean",
            "retain_kl_form": "cross_entropy",
            "measure": "stereotype_score",
        },
        "expected_reward": {
            **_NO_DPO,
            "reward_weight": 1.0,
            "reward_beta": 0.04,
            "learning_rate": 1e-5,
            "stop": "none",
        },
    }
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = PRESET_SOURCES

    axes: tuple[str, ...] = ()
    """Axes (dimensions of social groups) whose pairs in the training data are used; empty uses all pairs."""
    max_pairs: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of pairs, of which the first are used; None uses all."""
    dpo_weight: Weight = 1.0
    """Weight of direct preference optimisation."""
    npo_weight: Weight = 0.0
    """Weight of negative preference optimisation on the stereotyped sides."""
    simnpo_weight: Weight = 0.0
    """Weight of negative preference optimisation per token, without a reference."""
    ga_weight: Weight = 0.0
    """Weight of gradient ascent on the stereotyped sides. It diverges, so use it as a baseline only."""
    margin_weight: Weight = 0.0
    """Weight of the pairwise logistic loss of both sides' log-probability per token."""
    gap_weight: Weight = 0.0
    """Weight of the squared difference of both sides' log-probability per token."""
    lm_weight: Weight = 0.0
    """Weight of the cross-entropy of the counter-stereotyped sides."""
    swapped_lm_weight: Weight = 0.0
    """Weight of the cross-entropy of the stereotyped sides, which are group-swapped copies if the sides differ in the
    group."""
    retain_lm_weight: Weight = 0.0
    """Weight of the cross-entropy on the training data's texts, per token."""
    retain_kl_weight: Weight = 0.0
    """Weight of the KL divergence from the baseline on the training data's texts, per token."""
    reward_weight: Weight = 0.0
    """Weight of the expected reward of the training data's multiple-choice questions."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Cost of moving away from the baseline, in dpo and npo."""
    simnpo_beta: Annotated[float, Field(gt=0)] = 4.5
    """Steepness of the simnpo loss."""
    simnpo_delta: float = 0.0
    """Threshold of the simnpo loss in nats per token, from which its gradient decays."""
    margin: float = 0.0
    """Margin in nats per token by which `margin_weight` makes the counter-stereotyped side more probable."""
    reward_beta: Annotated[float, Field(ge=0)] = 0.04
    """Weight of KL(model || baseline) over the options, next to the expected reward."""
    npo_form: Literal["rows", "batch_mean"] = "rows"
    """How the npo loss is averaged. rows: a mean over sequences (as in the paper). batch_mean: one sigmoid of the
    batch's mean negative log-likelihood per token (the released code of BiasUnlearn); it depends on
    `gradient_accumulation_steps`."""
    retain_kl_form: Literal["kl", "cross_entropy"] = "kl"
    """How the divergence is computed. kl: in full. cross_entropy: without the entropy of the baseline (the released
    code of BiasUnlearn), with the same gradient but a start above 0."""
    adversarial_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the pairs whose counter-stereotyped side is unlearned as well."""
    stop: Literal["parity", "none"] = "parity"
    """When training ends. parity: within `tolerance` of 50 % on the validation pairs; the weights of the nearest check
    are kept. none: after all steps; the last weights are kept."""
    tolerance: Annotated[float, Field(gt=0)] = 2.0
    """Distance from 50 %, in percentage points, that counts as parity; 2 in the source of the swapping rule."""
    measure: Literal["probability", "stereotype_score"] = "probability"
    """Quantity that is 50 % at parity. probability: the stereotyped side's mean share of the probability of both sides.
    stereotype_score: the share of pairs whose stereotyped side is more probable per token."""
    swap: bool = False
    """Whether, after each check, only the axis farthest from parity is trained, with the sides exchanged if it is below
    50 %, until every axis is within `tolerance`. Otherwise all pairs are judged together."""
    check_steps: Annotated[int, Field(gt=0)] | None = None
    """Number of optimizer steps between checks on the validation pairs; None checks after each pass over the pairs."""
    rank: Annotated[int, Field(gt=0)] = 16
    """Rank of the LoRA adapter."""
    alpha: Annotated[int, Field(gt=0)] = 16
    """Scale of the adapter, which is weighted by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout in the adapter; always off in the reference."""
    targets: Literal["all", "attention"] = "all"
    """Layers with an adapter: all linear ones, or only queries and values (attention)."""
    epochs: Annotated[int, Field(gt=0)] = 3
    """Maximum number of passes over the pairs (or the questions, if no loss of pairs has a weight)."""
    steps: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of optimizer steps, instead of `epochs`."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak learning rate of AdamW; it falls linearly to 0."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Fraction, times the learning rate, by which AdamW shrinks the weights in a step."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient of a step; larger gradients are scaled down to it."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Number of pairs, and of questions, per optimizer step."""
    retain_batch_size: Annotated[int, Field(gt=0)] = 16
    """Number of texts per optimizer step."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 1
    """Number of parts in which a step is computed, with the same result; it has to divide `batch_size`."""
    batch_tokens: Annotated[int, Field(gt=0)] = 2048
    """Maximum number of tokens computed at once."""
    max_length: Annotated[int, Field(gt=3)] = 1024
    """Maximum number of tokens of a prompt and one side; longer pairs and questions are left out, longer texts cut."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "no"
    """Precision of matrix products; auto is bf16 on GPUs that have it. Log-probabilities are summed in float32."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the pairs and questions held out for the checks."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Number of checks without a smaller distance from parity before training ends, with stop=parity; 0 never ends
    early."""
    seed: int = 0
    """Seed of the held-out items, new weights and the order of batches."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        if self.batch_size % self.gradient_accumulation_steps:
            raise SettingsError(
                f"batch_size={self.batch_size} is not divisible by "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}"
            )
        if not (self._has(PAIR_TERMS) or self.reward_weight):
            raise SettingsError(
                f"{self.name}: no loss of pairs or questions has a weight; set one, such as gap_weight=1"
            )
        if self.stop == "parity" and not (self._has(PAIR_TERMS) and self.validation_fraction):
            raise SettingsError(
                f"{self.name}(stop=parity) judges validation pairs: set the weight of a loss of pairs and a "
                "validation_fraction above 0, or set stop=none"
            )
        if self.swap and self.stop != "parity":
            raise SettingsError(f"{self.name}(swap=True) follows the checks of stop=parity: leave stop={self.stop} out")

    def _has(self, names: Sequence[str]) -> bool:
        """Whether any of these losses has a weight."""
        weights = self._weights()
        return any(weights[name] for name in names)

    # --------------------------------------------------------------------------------------------------- the data

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that is not local and causal or is quantised, or missing data for a loss."""
        from evenhand.training import trainable

        reason = super().unsupported_reason(model, data)
        reason = reason or trainable.unsupported_reason(self.name, model, masked=False)
        return reason or self._missing_kinds(data or TrainData())

    def _missing_kinds(self, data: TrainData) -> str:
        given = "train= of compare, --train on the command line, data= of apply"
        if self._has(PAIR_TERMS) and not data.pairs:
            return f"{self.name} needs pairs of a stereotyped and another text: training data with pairs ({given})"
        if self._has(TEXT_TERMS) and not data.texts:
            return (
                f"{self.name} needs texts that have nothing to do with the bias: training data with texts next to the "
                f"pairs, such as --train 'pairs.jsonl & texts.txt' ({given}); or set retain_lm_weight=0 and "
                "retain_kl_weight=0"
            )
        if self.reward_weight and not data.questions:
            return f"{self.name} needs multiple-choice questions with answers for reward_weight: {given}"
        return ""

    def prepared(self, model: Model, data: TrainData) -> Lesson:
        """Tokenise pairs, texts and questions as far as losses with a weight need them.

        Raises:
            SettingsError: There are too few pairs, texts or questions.
        """
        from evenhand.methods.unlearning._pairwise.reading import Lesson, read_texts

        length = min(self.max_length, model.context_length)
        train, held, left_out = self._rows(model, self._own(data.pairs)) if self._has(PAIR_TERMS) else ([], [], {})
        texts = read_texts(data.texts, model.weights.tokenizer, length) if self._has(TEXT_TERMS) else []
        if self._has(TEXT_TERMS) and not texts:
            raise SettingsError(
                f"{self.name}: none of the {len(data.texts)} texts has two tokens or more, so nothing would be "
                "retained; add sentences, or set retain_lm_weight=0 and retain_kl_weight=0"
            )
        questions, held_questions = self._questions(model, data) if self.reward_weight else ([], [])
        return Lesson(train, held, left_out, texts, questions, held_questions)

    def _own(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        known = sorted({p.axis for p in pairs})
        missing = [axis for axis in self.axes if axis not in known]
        if missing:
            raise SettingsError(f"no pairs about {', '.join(missing)}; the training data has: {', '.join(known)}")
        return [p for p in pairs if not self.axes or p.axis in self.axes][: self.max_pairs]

    def _rows(self, model: Model, pairs: Sequence[Pair]) -> tuple[list[Row], list[Row], dict[str, int]]:
        """Tokenise pairs into training and held-out rows, and count those left out, by reason."""
        from evenhand.methods.unlearning._pairwise.reading import divided, read_rows

        length = min(self.max_length, model.context_length)
        found = read_rows(pairs, model.weights.tokenizer, length)
        lost = [f"{len(names)} with {why} (such as {names[0]})" for why, names in found.left_out.items()]
        if len(found.rows) < MIN_PAIRS:
            why = [f"{found.repeated} repeated"] * bool(found.repeated) + lost
            raise SettingsError(
                f"{self.name} needs at least {MIN_PAIRS} different pairs of at most {length} tokens, not "
                f"{len(found.rows)}" + (f": of {len(pairs)} pairs, {', '.join(why)}" if why else "")
            )
        counts = {reason: len(names) for reason, names in found.left_out.items()}
        if lost:
            count = sum(counts.values())
            warnings.warn(f"{self.name}: of {len(pairs)} pairs, {count} are not used: {', '.join(lost)}", stacklevel=3)
        train, held = divided(found.rows, self.validation_fraction, self.seed)
        if self.swap:
            self._check_axes({row.axis for row in train}, {row.axis for row in held})
        return train, held, counts

    def _check_axes(self, train: set[str], held: set[str]) -> None:
        """Check that axes have both validation pairs, which swap them, and training pairs; others are left alone."""
        remedy = "add pairs of each axis, set another seed or a larger validation_fraction, or set swap=False"
        if not train & held:
            raise SettingsError(f"{self.name}(swap=True): no axis has both training and validation pairs; {remedy}")
        if alone := sorted(train ^ held):
            warnings.warn(
                f"{self.name}(swap=True) trains no pairs about {', '.join(alone)}, which are all in the training or "
                f"all in the validation pairs; {remedy}",
                stacklevel=4,
            )

    def _questions(self, model: Model, data: TrainData) -> tuple[list[Rewarded], list[Rewarded]]:
        from evenhand.methods.unlearning._pairwise.reading import divided_questions, read_questions

        length = min(self.max_length, model.context_length)
        found = read_questions(data.questions, data.answers, model.weights.tokenizer, length)
        if len(found) < MIN_QUESTIONS:
            raise SettingsError(
                f"{self.name} needs at least {MIN_QUESTIONS} questions with known answers of at most {length} tokens, "
                f"not {len(found)} of {len(data.questions)}"
            )
        return divided_questions(found, self.validation_fraction, self.seed)

    def content(self, prepared: Lesson) -> Sequence[object]:
        """Return what is trained on and held out; what was left out affects no result, but is part of the record."""
        asked = [
            [(in_first_names(one.question), one.rewards) for one in some]
            for some in (prepared.questions, prepared.held_questions)
        ]
        rows = [[tuple(row) for row in some] for some in (prepared.train, prepared.held)]
        return [*rows, list(prepared.texts), asked, prepared.left_out]

    def made_with(self, model: Model, prepared: Lesson) -> list[str | int]:
        """Return the model's device."""
        return made_with(model, precision=self.precision)

    # ---------------------------------------------------------------------------------------------------- training

    @property
    def remedy(self) -> str:
        """What messages suggest if training diverges: a lower learning rate."""
        return f"set a learning_rate below {self.learning_rate:g}"

    def train(self, model: Model, prepared: Lesson, folder: Path) -> Fitted:
        """Train an adapter on a copy of the model."""
        from evenhand.methods.unlearning._negation import plain
        from evenhand.methods.unlearning._pairwise.run import Run
        from evenhand.training.lora import Adapter, adapted, lora_config

        base = plain(model.weights.module)
        config = lora_config(base, Adapter(self.rank, self.alpha, self.dropout, targets=self.targets))
        tuned = adapted(base, config, self.seed)
        plan = self._plan(prepared, str(base.device))
        known = Run(tuned, model.weights.tokenizer, prepared, plan).train(folder)
        self._warn_if_farther(known["curve"])
        finished = len(known["curve"]) - (1 if prepared.held or prepared.held_questions else 0)
        return Fitted(
            tuned,
            {
                **known,
                "data": self._trained_on(prepared),
                "precision": resolved_precision(self.precision, str(base.device)),
                "epochs": finished if self.steps is None and self.check_steps is None else None,
                "results": self._results(prepared),
            },
        )

    def _warn_if_farther(self, curve: Sequence[Mapping[str, float]]) -> None:
        """Warn if every check was farther from parity than the model before training, by more than the tolerance."""
        from evenhand.methods.unlearning._pairwise.run import FARTHEST, NEAREST

        if self.stop != "parity" or len(curve) < 2:
            return
        first, *others = (row[FARTHEST if self.swap else NEAREST] for row in curve)
        if min(others) > first + self.tolerance:
            warnings.warn(
                f"{self.name}: the model was {first:.1f} points from parity on the validation pairs, and is at least "
                f"{min(others):.1f} after training; set a lower learning_rate or smaller check_steps",
                stacklevel=3,
            )

    def _trained_on(self, lesson: Lesson) -> TrainedOn:
        pairs = bool(lesson.train)
        train, held = (lesson.train, lesson.held) if pairs else (lesson.questions, lesson.held_questions)
        return TrainedOn(
            unit="pairs" if pairs else "questions",
            training=len(train),
            validation=len(held),
            hash=digest(*self.content(lesson)),
        )

    def _results(self, lesson: Lesson) -> dict[str, Any]:
        """Return what was left out, and the mean lengths of both sides, since sums favour the shorter one."""
        found: dict[str, Any] = {"left_out": lesson.left_out}
        if lesson.train:
            found["mean_tokens"] = {
                "counter_stereotyped": sum(len(row.chosen) for row in lesson.train) / len(lesson.train),
                "stereotyped": sum(len(row.rejected) for row in lesson.train) / len(lesson.train),
            }
        if lesson.texts:
            found["retained_texts"] = len(lesson.texts)
        return found

    def _weights(self) -> dict[str, float]:
        """The weight of each loss, by name."""
        return {
            "lm": self.lm_weight,
            "swapped_lm": self.swapped_lm_weight,
            "dpo": self.dpo_weight,
            "npo": self.npo_weight,
            "simnpo": self.simnpo_weight,
            "ga": self.ga_weight,
            "margin": self.margin_weight,
            "gap": self.gap_weight,
            "retain_lm": self.retain_lm_weight,
            "retain_kl": self.retain_kl_weight,
            "reward": self.reward_weight,
        }

    def _objective(self) -> Objective:
        from evenhand.methods.unlearning._pairwise.objective import Objective

        return Objective(
            weights=self._weights(),
            beta=self.beta,
            simnpo_beta=self.simnpo_beta,
            simnpo_delta=self.simnpo_delta,
            margin=self.margin,
            npo_form=self.npo_form,
            retain_kl_form=self.retain_kl_form,
            reward_beta=self.reward_beta,
        )

    def _plan(self, lesson: Lesson, device: str) -> Plan:
        from evenhand.methods.unlearning._pairwise.run import Plan
        from evenhand.methods.unlearning._pairwise.steps import Sizes
        from evenhand.training.loop import Schedule

        per_pass = -(-len(lesson.train or lesson.questions) // self.batch_size)
        steps = self.steps or self.epochs * per_pass
        round_steps = min(self.check_steps or per_pass, steps)
        schedule = Schedule.of(self, learning_rate=self.learning_rate, device=device, precision=self.precision)
        return Plan(
            objective=self._objective(),
            schedule=replace(schedule, epochs=-(-steps // round_steps)),
            sizes=Sizes(
                self.batch_size if lesson.train else 0,
                self.retain_batch_size if lesson.texts else 0,
                self.batch_size if lesson.questions else 0,
                self.gradient_accumulation_steps,
            ),
            steps=steps,
            round_steps=round_steps,
            batch_tokens=self.batch_tokens,
            stop_at_parity=self.stop == "parity",
            swap=self.swap,
            measure=self.measure,
            tolerance=self.tolerance,
            adversarial_fraction=self.adversarial_fraction,
        )

    # ---------------------------------------------------------------------------------------------------- keeping

    def keep(self, model: Model, made: Fitted, record: TrainingRecord, folder: Path) -> None:
        """Save the adapter, its base with it if no name loads the same weights, and finally the record."""
        from evenhand.methods.unlearning._negation import is_named
        from evenhand.models.adapters import forget_name

        if not is_named(model):
            forget_name(made.module)
        super().keep(model, made, record, folder)

    def opened(self, model: Model, folder: Path) -> Model:
        """Open the adapter on the base that it names."""
        from evenhand.methods.unlearning._result import open_edited

        return open_edited(folder, model, f"{model.name}+{self.spec}", remedy=self.remedy)
