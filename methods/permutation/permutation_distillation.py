"""`permutation_distillation`: students of the permutation ensemble, whose answers do not depend on the option order.

Source: Liusie, Fathullah, Gales 2024, "Teacher-Student Training for Debiasing: General Permutation Debiasing for Large
Language Models" (arXiv 2403.13590): pure distillation, and error correction of one biased decision, with encoder-only
students. No code is published. Ours: the student over (question, option) pairs, the language model as its own student,
the cyclic orders with the geometric mean, and all settings of the training, which the paper's text that was read does
not give.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from evenhand.core.artifacts import made_with, resolved_precision
from evenhand.core.draws import generator, seeded_order
from evenhand.core.hashing import digest, of_folder
from evenhand.errors import SettingsError
from evenhand.interfaces import (
    Ability,
    Choice,
    Model,
    Question,
    TooLong,
    TrainData,
    TrainedOn,
    TrainingRecord,
    in_first_names,
    settings,
)
from evenhand.prompting.permutation_ensemble import WhichMean, WhichOrders, check, debiased, drawn, sampled_question
from evenhand.prompting.remarks import remark
from evenhand.training.preset_values import UNSTATED
from evenhand.training.trained_method import Fitted, TrainedMethod

if TYPE_CHECKING:
    from evenhand.methods.permutation._encoder_student import FormName
    from evenhand.methods.permutation._learning import Example
    from evenhand.methods.permutation._student import EncoderStudent, LoraStudent

LEAST_QUESTIONS = 20
"""Minimum number of answered questions for training and evaluation."""
RATES = {"encoder": 3e-5, "equivariant": 3e-5, "lora": 2e-4}
"""Usual learning rates for fine-tuning base-sized encoders, and for adapters."""

_TRAINING: Mapping[str, Any] = {
    "epochs": 10,
    "learning_rate": None,
    "batch_size": 16,
    "max_length": None,
    "validation_fraction": 0.1,
    "patience": 3,
    "warmup_ratio": 0.1,
    "gradient_accumulation_steps": 1,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
}
"""Training settings in the preset of the paper, which publishes no code and does not state them."""


class Lesson(NamedTuple):
    """Questions for the teacher, and their right answers as far as known."""

    questions: Sequence[Question]
    answers: Sequence[int | None]


@settings
class PermutationDistillation(TrainedMethod):
    """Teach a student what the model says when the order of the options is averaged out."""

    training_version: ClassVar[int] = 2
    not_in_key: ClassVar[frozenset[str]] = frozenset({"device", "max_questions"})
    name: ClassVar[str] = "permutation_distillation"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    needs_data: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "student": "encoder",
            "teacher": "probabilities",
            "orders": "full",
            "mean": "arithmetic",
            "decision": "sampled",
            "too_long": "skip",
            **_TRAINING,
        },
        "demo": {
            "student": "equivariant",
            "encoder": "demo-mlm",
            "learning_rate": 5e-4,
            "epochs": 8,
            "batch_size": 4,
        },
    }
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {
        "paper": {
            "": "arXiv 2403.13590, white-box teacher",
            "student": "arXiv 2403.13590, encoder-only students",
            "decision": "arXiv 2403.13590, error correction",
            "too_long": "arXiv 2403.13590, what the encoder cannot read",
            **dict.fromkeys(_TRAINING, UNSTATED),
        },
        "demo": {"": "ours, for the demo models"},
    }
    added_later: ClassVar[frozenset[str]] = frozenset(
        {"gradient_accumulation_steps", "weight_decay", "max_grad_norm", "too_long", "max_questions"}
    )
    renamed: ClassVar[Mapping[str, str]] = {"held_out": "validation_fraction", "warm_up": "warmup_ratio"}

    variant: Literal["distilled", "error_correction"] = "distilled"
    """What the student does. distilled: it answers alone, without the model. error_correction: it also reads the
    model's single biased decision."""
    student: Literal["encoder", "equivariant", "lora"] = "encoder"
    """Kind of student. encoder: reads the lettered question (as in the paper). equivariant: scores each option by
    itself, so that the order cannot matter (ours). lora: the model itself with an adapter (ours), which still writes
    and scores if distilled."""
    encoder: str = "FacebookAI/roberta-base"
    """Encoder that a student starts from: a Hugging Face name, a folder, or demo-mlm. The default is one of the
    paper's."""
    teacher: Literal["probabilities", "sampled"] = "probabilities"
    """What is known of the model: probabilities of its options, or only sampled decisions (a black box)."""
    orders: WhichOrders = "auto"
    """Orders in which the teacher is asked: full, cyclic or sampled; auto is sampled for sampled decisions, otherwise
    full with up to three options and cyclic with more. full in the paper."""
    mean: WhichMean = "auto"
    """How orders are averaged: arithmetic (as in the paper) or geometric; auto is geometric over cyclic orders."""
    draws: Annotated[int, Field(gt=0)] = 32
    """Number of orders if they are sampled; the paper finds 32 enough."""
    decision: Literal["auto", "likeliest", "sampled"] = "auto"
    """Which decision is corrected, in training and afterwards: the model's most probable one (likeliest), or a draw
    from its distribution (sampled, as in the paper). auto is likeliest if probabilities are known."""
    max_questions: Annotated[int, Field(ge=LEAST_QUESTIONS)] | None = None
    """Maximum number of training questions, drawn by the seed if there are more; None uses all. The paper trains on
    about 30,000 of RACE++, and on about 2,000 of SummEval."""
    epochs: Annotated[int, Field(gt=0)] = 10
    """Maximum number of passes over the training questions."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of AdamW; None is 3e-5 for encoders and 2e-4 for lora."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Number of questions per batch."""
    max_length: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of tokens that the student reads; None is as many as it can. Longer questions are never cut
    (`too_long`)."""
    too_long: TooLong = "error"
    """How training questions that are too long for the student are handled. error: training is refused, naming the
    first one. skip: they are left out, and the record counts them under `questions_too_long` (as in the paper)."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the questions held out to evaluate each epoch; the weights of the best epoch are kept. 0 trains on
    all questions and keeps the last epoch; whether the student collapsed is then judged on the training questions."""
    patience: Annotated[int, Field(ge=0)] = 3
    """Epochs without a lower held-out KL before training ends; 0 never ends early."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the steps in which the learning rate rises."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 1
    """Number of batches per optimizer step."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Fraction, times the learning rate, by which AdamW shrinks the weights in a step."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient of a step; larger gradients are scaled down to it."""
    rank: Annotated[int, Field(gt=0)] = 8
    """Rank of the LoRA adapter, whose alpha is twice that."""
    seed: int = 0
    """Seed of the held-out questions, all draws, new weights and the order of batches."""
    device: str | None = None
    """Device on which an encoder student is trained and runs; None takes a GPU if there is one. lora stays with its
    model."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another, before anything is asked."""
        check(decisions=self.teacher, orders=self.orders, mean=self.mean, draws=self.draws)
        if self.teacher == "sampled" and self.decision == "likeliest":
            raise SettingsError("decision=likeliest is unknown with teacher=sampled: leave it out")

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a student that does not fit the model, or too few questions."""
        reason = super().unsupported_reason(model, data or TrainData())  # the data are checked after the student
        if not reason and self.student == "lora":
            reason = self._unfit_for_lora(model)
        reason = reason or super().unsupported_reason(None, data)
        if reason or data is None or len(data.questions) >= LEAST_QUESTIONS:
            return reason
        count = len(data.questions)
        return (
            f"{self.name} needs at least {LEAST_QUESTIONS} questions to train on, not {count}: train= of compare, "
            "--train on the command line, data= of apply"
        )

    def _unfit_for_lora(self, model: Model | None) -> str:
        """Return a reason against a model that is not local or not asked by letters, for student=lora."""
        from evenhand.training import trainable

        reason = trainable.unsupported_reason(f"{self.name}(student=lora)", model, masked=False)
        if model is not None and not reason and model.answer_by != "letters":
            return f"{self.name}(student=lora) learns letters; {model.name} has answer_by={model.answer_by}"
        return reason

    def prepared(self, model: Model, data: TrainData) -> Lesson:
        """Return the questions and their known answers: all, or as many as are to be drawn.

        Raises:
            SettingsError: The numbers of answers and questions differ.
        """
        questions = data.questions
        answers = data.answers or (None,) * len(questions)
        if len(answers) != len(questions):
            raise SettingsError(f"{self.name}: {len(answers)} answers for {len(questions)} questions")
        return self._some(Lesson(questions, answers))

    def _some(self, lesson: Lesson) -> Lesson:
        """Draw the wanted number of questions, in their order; the draw depends on their ids and the seed only.

        Questions from several sources may share an id: they are distinguished by how many with that id precede them.
        """
        if self.max_questions is None or len(lesson.questions) <= self.max_questions:
            return lesson
        places: dict[str, int] = {}
        seen: Counter[str] = Counter()
        for n, q in enumerate(lesson.questions):
            places[f"{q.id}\0{seen[q.id]}" if seen[q.id] else q.id] = n
            seen[q.id] += 1
        drawn_ids = seeded_order(places, self.seed, "training questions")[: self.max_questions]
        rows = sorted(places[name] for name in drawn_ids)
        return Lesson([lesson.questions[n] for n in rows], [lesson.answers[n] for n in rows])

    def content(self, prepared: Lesson) -> Sequence[object]:
        """Return what the student starts from, and the questions."""
        return [self._begins_as, [in_first_names(q) for q in prepared.questions], prepared.answers]

    def opened(self, model: Model, folder: Path) -> Model:
        """Return the student in the model's place, or after it."""
        return self._mitigated(model, self._opened(folder))

    def restore(self, model: Model, folder: Path) -> Model:
        """Return the same from a saved student."""
        return self._mitigated(model, self._opened(folder))

    def made_with(self, model: Model, prepared: Lesson) -> list[str | int]:
        """Return the model's device for an adapter, the encoder's own otherwise; both train in float32."""
        from evenhand.methods.permutation._student import placed

        return made_with(model, device=None if self.student == "lora" else placed(self.device), precision=None)

    # ------------------------------------------------------------------------------------------------ training

    def train(self, model: Model, prepared: Lesson, folder: Path) -> Fitted:
        """Ask the teacher in all orders, and train a student."""
        if self.student == "lora":
            return self._train_tuned(model, prepared, folder)
        return self._train_encoder(self.student, model, prepared, folder)

    def check(self, model: Model, made: Fitted) -> None:
        """Check a LoRA student; an encoder has no token logits, and its training refuses losses that are not finite."""
        if self.student == "lora":
            super().check(model, made)

    def keep(self, model: Model, made: Fitted, record: TrainingRecord, folder: Path) -> None:
        """Save the student in the format that `restore` opens."""
        from evenhand.methods.permutation._student import EncoderStudent, LoraStudent

        name = self._label(model)
        if self.student != "lora":
            form = made.more
            EncoderStudent(made.module, form.tokenizer, form, name=name, training=record).save(folder)
            return
        tuned = LoraStudent(made.module, model.weights.tokenizer, name=name, **_asking(model))
        tuned.training = record
        tuned.save(folder)

    def _train_tuned(self, model: Model, lesson: Lesson, folder: Path) -> Fitted:
        from evenhand.methods.permutation._lora_student import Letters
        from evenhand.training.lora import with_adapter

        questions, tokenizer = lesson.questions, model.weights.tokenizer
        letters = Letters(tokenizer, self._length(model.context_length))
        lengths = [letters.longest(q, self._marks) for q in questions]
        examples, results = self._taught(model, lesson, lengths, letters.max_length)
        module = with_adapter(
            model.weights.module,
            rank=self.rank,
            alpha=2 * self.rank,
            dropout=0.0,
            seed=self.seed,
            named=model.unedited_source is not None,
        )
        device = str(next(module.parameters()).device)
        known = self._learned(module, letters, examples, folder, device)
        return Fitted(module.eval(), self._known(known, results, lesson))

    def _train_encoder(self, form_name: FormName, model: Model, lesson: Lesson, folder: Path) -> Fitted:
        from evenhand.methods.permutation._encoder_student import FORMS, Network, open_encoder, part_alike
        from evenhand.methods.permutation._student import placed
        from evenhand.models.architecture import context_of

        questions = lesson.questions
        encoder, tokenizer = open_encoder(self._source)
        kind = FORMS[form_name]
        form = kind(tokenizer, self._length(context_of(encoder.config, tokenizer)))
        for q in questions:
            if form.fits(q):
                raise SettingsError(f"{q.id}: {form.fits(q)}; leave it out, or set student=equivariant")
        read = [form.encoded(form.longest_texts(q, self._marks)) for q in questions]
        lengths = [max(map(len, rows)) for rows in read]
        examples, results = self._taught(model, lesson, lengths, form.max_length)
        parted = part_alike(encoder, (token for rows in read for row in rows for token in row), self.seed)
        results["words_new_to_the_encoder"] = parted
        network = Network(encoder, kind.width, seed=self.seed)
        known = self._learned(network, form, examples, folder, placed(self.device))
        return Fitted(network, self._known(known, results, lesson), form)

    @staticmethod
    def _known(known: dict[str, Any], results: dict[str, Any], lesson: Lesson) -> dict[str, Any]:
        """Return facts about a training, with the number of given questions and what the teacher was asked."""
        content = digest([in_first_names(q) for q in lesson.questions], lesson.answers)
        data = replace(known["data"], hash=content)
        return {**known, "data": data, "results": {**results, **known["results"]}}

    def _taught(
        self, model: Model, lesson: Lesson, lengths: Sequence[int], most: int
    ) -> tuple[list[Example], dict[str, Any]]:
        """Return the teacher's answers in all orders, asked in one call; missing answers are left out and counted."""
        from evenhand.methods.permutation._learning import Example, usable

        questions, answers = self._short_enough(lesson, lengths, most)
        taught = debiased(
            model,
            questions,
            decisions=self.teacher,
            orders=self.orders,
            mean=self.mean,
            draws=self.draws,
            seed=self.seed,
        )
        every = [Example(q, t, a) for q, t, a in zip(questions, taught, answers, strict=True)]
        examples = [e for e in every if usable(e, self.variant)]
        lost = len(every) - len(examples)
        if len(examples) < LEAST_QUESTIONS:
            why = next((t.note for t in taught if t.probabilities is None and t.note), "")
            raise SettingsError(
                f"{self.name}: {len(examples)} of {len(questions)} training questions were answered by {model.name}, "
                f"at least {LEAST_QUESTIONS} are needed{f' (the first that was not: {why})' if why else ''}"
            )
        return examples, {
            "teacher": model.name,
            "training_questions": len(examples),
            "questions_left_out": lost,
            **({"questions_too_long": len(lesson.questions) - len(questions)} if self.too_long == "skip" else {}),
            "teacher_calls": sum(t.usage.calls for t in taught),
        }

    def _learned(self, module: Any, reads: Any, examples: list[Example], folder: Path, device: str) -> dict[str, Any]:
        """Train the student; return fields for the record."""
        from evenhand.methods.permutation._learning import learn, texts_of
        from evenhand.training.holding_out import hold_out
        from evenhand.training.loop import Schedule

        train, held = hold_out(examples, texts_of, self.validation_fraction, self.seed)
        schedule = Schedule.of(
            self,
            learning_rate=self.learning_rate or RATES[self.student],
            device=device,
        )
        began = time.monotonic()
        made = learn(
            module,
            reads,
            train,
            held,
            schedule=schedule,
            batch_size=self.batch_size,
            variant=self.variant,
            decision=self._decision,
            counted=self.teacher == "sampled",
            folder=folder,
        )
        seconds = round(time.monotonic() - began, 1)
        of_held = {**made.judged.numbers, "held_out_agreement_of_copying": made.judged.copied} if held else {}
        return {
            "data": TrainedOn(unit="questions", training=len(train), validation=len(held)),
            "precision": resolved_precision(schedule.precision, device),
            "epochs": len(made.curve),
            "best_epoch": made.best,
            "curve": tuple(made.curve),
            "seconds": seconds,
            "results": {**of_held, "collapsed": made.judged.collapsed},
        }

    def _short_enough(self, lesson: Lesson, lengths: Sequence[int], most: int) -> Lesson:
        """Return the questions that the student can read.

        Args:
            lesson: All questions.
            lengths: Maximum number of tokens of each question.
            most: Number of tokens that the student reads.

        Raises:
            SettingsError: A question is too long and is not to be left out, or too few are left.
        """
        fits = [n for n, length in enumerate(lengths) if length <= most]
        if len(fits) == len(lengths):
            return lesson
        first = next(n for n, length in enumerate(lengths) if length > most)
        what = (
            f"{lesson.questions[first].id} needs {lengths[first]} tokens, the student reads {most}; "
            f"{len(lengths) - len(fits)} of {len(lengths)} training questions are too long. "
        )
        if self.too_long == "error":
            raise SettingsError(
                f"{what}Nothing is cut silently: leave them out (too_long=skip does), raise max_length, or take a "
                "student that reads more"
            )
        if len(fits) < LEAST_QUESTIONS:
            raise SettingsError(
                f"{what}At least {LEAST_QUESTIONS} are needed: give shorter ones, raise max_length, or take a student "
                "that reads more"
            )
        remark(
            f"{self.name}: {len(lengths) - len(fits)} of {len(lengths)} training questions are longer than the {most} "
            f"tokens that the student reads, and are left out (too_long=skip), such as {lesson.questions[first].id}"
        )
        return Lesson([lesson.questions[n] for n in fits], [lesson.answers[n] for n in fits])

    # ---------------------------------------------------------------------------------------------- what results

    def _mitigated(self, model: Model, student: EncoderStudent | LoraStudent) -> Model:
        from evenhand.methods.permutation._student import Corrected, collapsed

        if reason := collapsed(student.training):
            warnings.warn(
                f"the student of {model.name} collapsed and is not a valid result: {reason}. Try another seed, a "
                "lower learning_rate, more questions or epochs",
                stacklevel=3,
            )
        student.name = self._label(model)
        if self.variant == "distilled":
            return student

        def choose(questions: Sequence[Question]) -> list[Choice]:
            return self._correct(model, student, questions)

        return Corrected(model, self, student, choose)

    def _correct(
        self, model: Model, student: EncoderStudent | LoraStudent, questions: Sequence[Question]
    ) -> list[Choice]:
        """Ask the teacher once in the shown order, then the student; usage is the sum of both."""
        from evenhand.methods.permutation._student import EncoderStudent
        from evenhand.methods.permutation._texts import Asked, prompted

        if self._decision == "sampled":
            first = model.choose([sampled_question(q, model, self.seed, q.draw) for q in questions])
            marked = [self._drawn(q, c) for q, c in zip(questions, first, strict=True)]
        else:
            first = model.choose(questions)
            marked = [c.decision for c in first]
        known = [i for i, m in enumerate(marked) if m is not None]
        asked = [Asked(questions[i], marked[i]) for i in known]
        if isinstance(student, EncoderStudent):
            second = student.corrected(asked)
        else:
            second = student.choose([prompted(a) for a in asked])
        out = list(first)
        for i, c in zip(known, second, strict=True):
            note = "; ".join(n for n in (first[i].note, c.note) if n)
            out[i] = replace(c, usage=first[i].usage + c.usage, note=note)
        return out

    def _drawn(self, question: Question, choice: Choice) -> int | None:
        if choice.probabilities is None:
            return choice.decision
        rng = generator(self.seed, question.draw, *question.order, question.id)
        return drawn(choice.probabilities, float(rng.random()))

    def _opened(self, folder: Path) -> Any:
        from evenhand.methods.permutation._student import load_student

        return load_student(folder, {"device": self.device} if self.device else {}, detached=True)

    # ------------------------------------------------------------------------------------------------- settings

    @property
    def _marks(self) -> bool:
        return self.variant == "error_correction"

    @property
    def _decision(self) -> Literal["likeliest", "sampled"]:
        if self.decision != "auto":
            return self.decision
        return "sampled" if self.teacher == "sampled" else "likeliest"

    @property
    def _source(self) -> str:
        """Name or path of the encoder."""
        from evenhand.data.io.demo import MODELS

        demo = MODELS / self.encoder
        return str(demo) if self.encoder and (demo / "config.json").is_file() else self.encoder

    @property
    def _begins_as(self) -> Any:
        """Hash of the encoder's files."""
        if self.student == "lora":
            return None
        from evenhand.models.hugging_face import content_folders

        source = self._source
        folder = Path(source) if Path(source).is_dir() else None
        return [of_folder(f) for f in content_folders(source, folder, None, None)]

    def _length(self, context: int) -> int:
        return min(self.max_length or context, context)

    def _label(self, model: Model) -> str:
        return f"{model.name}+{self.spec}"


def _asking(model: Any) -> dict[str, Any]:
    return {"answer_by": model.answer_by, "sampling": model.sampling, "too_long": model.too_long}
