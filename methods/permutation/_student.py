"""Students as `Model`s: an encoder that only chooses, and a tuned language model that keeps all its abilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from evenhand.core import training_record
from evenhand.core.hashing import digest
from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference.encoder import EncoderEngine, Inputs
from evenhand.interfaces import Ability, Choice, Method, Model, Question, TrainingRecord, Usage
from evenhand.methods.permutation._encoder_student import FORMS, Form, Network, open_network, save_network
from evenhand.methods.permutation._texts import Asked
from evenhand.models import fingerprint, saved
from evenhand.models.files import SAVED
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Choose, Mitigated
from evenhand.prompting.option_orders import movable

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def collapsed(record: TrainingRecord | None) -> str:
    """Return why a student is not a valid result; "" for any other."""
    return "" if record is None else str(record.results.get("collapsed") or "")


def warned(record: TrainingRecord | None) -> str:
    """Return the note on every answer of a collapsed student; "" for any other."""
    reason = collapsed(record)
    return f"this student collapsed: {reason}" if reason else ""


class EncoderStudent(Model):
    """An encoder that chooses among options; it has no other ability."""

    source: str | None = None

    def __init__(
        self,
        network: Network,
        tokenizer: PreTrainedTokenizerBase,
        form: Form,
        *,
        name: str,
        training: TrainingRecord | None = None,
    ) -> None:
        """Take a trained network.

        Args:
            network: Network with as many outputs as the form reads.
            tokenizer: The encoder's tokenizer.
            form: How questions become its rows.
            name: Label for tables.
            training: How it was trained; its results say whether and why it `collapsed`.
        """
        self.name, self.form, self.training = name, form, training
        self._network, self._tokenizer = network, tokenizer
        self.engine = EncoderEngine(network, form.pad)  # type: ignore[arg-type]

    @property
    def abilities(self) -> frozenset[Ability]:
        """The only ability, to choose."""
        return frozenset({"choose"})

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, configuration and tokenizer, and of how questions are read; they cannot change."""
        weights = fingerprint.of_weights(self._network, self._tokenizer)  # type: ignore[arg-type]
        return digest("student", self.form.name, self.form.max_length, weights)

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Return a distribution over the options of each question, from one pass over all of them.

        A question that is longer than the encoder reads, or has more options, is unanswered. Usage counts each row that
        is fed as a call: one per question with lettered options, one per option with pairs.

        Raises:
            SettingsError: A prompt is a ready dialogue, which an encoder does not read.
        """
        return self.corrected([Asked(q) for q in questions])

    def corrected(self, asked: Sequence[Asked]) -> list[Choice]:
        """Return the same, with the teacher's decisions marked."""
        for a in asked:
            if a.question.dialogue is not None:
                raise SettingsError(
                    f"{a.question.id}: {self.name} reads question and options, not a conversation; put methods that "
                    "hold conversations around the teacher, or leave them out"
                )
        refused = [self.form.fits(a.question) for a in asked]
        rows = iter(self.form.rows([a for a, why in zip(asked, refused, strict=True) if not why]))
        read = [[] if why else next(rows) for why in refused]
        for n, ids in enumerate(read):
            longest = max(map(len, ids), default=0)
            if longest > self.form.max_length:
                refused[n] = f"needs {longest} tokens, the student reads {self.form.max_length}"
        fed = [n for n, why in enumerate(refused) if not why]
        marks = [mark for n in fed for mark in self.form.marks(asked[n])]
        values = self._outputs([row for n in fed for row in read[n]], marks)
        out = [Choice(None, status="unanswered", note=why) for why in refused]
        start = 0
        for n in fed:
            own = values[start : start + len(read[n])].flatten()[self.form.places(asked[n])]
            out[n] = self._choice(asked[n].question, own, read[n])
            start += len(read[n])
        return out

    def save(self, folder: str | Path) -> Path:
        """Write weights (safetensors), tokenizer and training record."""
        folder = Path(folder)
        saved.begin(folder)
        save_network(self._network, self._tokenizer, folder)
        _write(folder, self, self.form.name, max_length=self.form.max_length)
        return folder

    def facts(self) -> dict[str, Any]:
        """Return size and device, and how the training went."""
        return {
            **({} if self.training is None else self.training.facts()),
            **super().facts(),
            "source": self.source or "memory",
            "device": str(next(self._network.parameters()).device),
            "parameters": int(sum(p.numel() for p in self._network.parameters())),
            "demo": bool(getattr(self._network.config, "evenhand_demo", False)),
        }

    def _outputs(self, rows: list[list[int]], marks: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        if not rows:
            return np.zeros((0, self.form.width))

        def run(inputs: Inputs) -> Tensor:
            marked = inputs["token_type_ids"][:, 0]
            logits: Tensor = self._network(inputs["input_ids"], inputs["attention_mask"], marked).logits
            return logits

        # a mark is for a whole row, and is passed as the type of its tokens
        types = [[mark] * len(row) for mark, row in zip(marks, rows, strict=True)]
        return self.engine.outputs(rows, run, types=types, fingerprint=self.fingerprint)

    def _choice(self, question: Question, scores: Any, rows: Sequence[Sequence[int]]) -> Choice:
        shares = softmax(np.asarray(scores, dtype=np.float64))
        notes = [warned(self.training)]
        if self.form.name == "equivariant" and movable(question).note:
            notes.append("this student sees no positions, although options refer to them")
        usage = Usage(len(rows), sum(map(len, rows)))
        note = "; ".join(n for n in notes if n)
        return Choice(int(np.argmax(scores)), tuple(map(float, shares)), usage=usage, note=note)


class LoraStudent(LocalModel):
    """A language model with the adapter that it learned; its answers report if it collapsed."""

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Answer like any local model."""
        note = warned(self.training)
        made = super().choose(questions)
        return [replace(c, note="; ".join(n for n in (note, c.note) if n)) for c in made] if note else made

    def _finish(self, folder: Path) -> None:
        """Write what it is, how it is asked and how it was trained."""
        _write(folder, self, "lora", asking=self.asking, precision=self.precision)


class Corrected(Mitigated):
    """A model followed by a student that corrects its decisions."""

    def __init__(self, base: Model, method: Method, student: EncoderStudent | LoraStudent, choose: Choose) -> None:
        """Put a student after a model.

        Args:
            base: The teacher.
            method: Method that made the student, and restores it.
            student: Student, which is saved with the result.
            choose: Asks both of them.
        """

        def keep(folder: Path) -> None:
            student.save(folder)

        abilities: frozenset[Ability] = frozenset({"choose"})
        fixed = [student.fingerprint]
        super().__init__(base, method, choose=choose, abilities=abilities, depends_on=fixed, keep=keep)
        self.student = student

    @property
    def training(self) -> TrainingRecord | None:  # type: ignore[override]  # it follows from the student
        """How the student was trained; saved with the student."""
        return self.student.training

    def facts(self) -> dict[str, Any]:
        """Return the teacher's facts, and how the student's training went."""
        own = self.student.facts()
        learned = {key: own[key] for key in own if key not in ("name", "abilities", "demo", "source")}
        return {**super().facts(), "student": learned}


def load_student(folder: Path, options: dict[str, Any], *, detached: bool = False, base: str | None = None) -> Model:
    """Open a saved student.

    Args:
        folder: Folder with evenhand.json of the kind "student".
        options: `device` and `name`; for a tuned language model those of any local model.
        detached: Whether the folder may be deleted later: the student is then in memory only.
        base: For a tuned language model, location of its base, instead of the one that its folder names.

    Raises:
        SettingsError: An option is not supported.
        EvenhandError: The files are missing or broken.
    """
    from evenhand.models import loading

    try:
        content = saved.read(folder)
        form, name = content["form"], str(options.get("name", content["name"]))
        training = saved.training_of(folder)
        length = content.get("max_length", 0)
        if form in FORMS and not (isinstance(length, int) and length > 0):
            raise ValueError(f"max_length is {length!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EvenhandError(f"{folder} is not a student as evenhand writes it: {error!r}; train it again") from error
    if form == "lora":
        return _load_tuned(folder, {**_own_options(folder, content), **options, "name": name}, training, detached, base)
    if base is not None:
        raise SettingsError(f"base={base!r}: the student in {folder} has all its weights inside; leave base out")
    if form not in FORMS:
        raise SettingsError(f"{folder / SAVED}: form {form!r} is not known to this version of evenhand")
    loading.refuse_unknown(options, ("name", "device"))
    network, tokenizer = open_network(folder, FORMS[form].width)
    student = EncoderStudent(
        network.to(placed(options.get("device"))),
        tokenizer,
        FORMS[form](tokenizer, int(content["max_length"])),
        name=name,
        training=training,
    )
    student.source = None if detached else str(folder)
    return student


def placed(device: str | None) -> str:
    """Return the requested device, or a GPU if there is one."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def _own_options(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return how a tuned language model was asked, and its precision; a folder may set nothing else."""
    from evenhand.models.loading import ASKING

    own: dict[str, Any] = {}
    for part, known in (("precision", ("dtype",)), ("asking", ASKING)):
        found = content.get(part)
        if not isinstance(found, dict) or not set(found) <= set(known):
            raise EvenhandError(f"{folder / SAVED} is not as evenhand writes it: {part} is {found!r}; train it again")
        own |= found
    return own


def _load_tuned(
    folder: Path, options: dict[str, Any], training: TrainingRecord | None, detached: bool, base: str | None
) -> Model:
    from evenhand.models import hugging_face, loading

    loading.refuse_unknown(options, (*loading.ASKING, *loading.LOADING))
    base = saved.base_of_adapter(folder) if base is None else str(Path(base).expanduser())
    given = {key: options[key] for key in loading.LOADING if key in options}
    module, tokenizer = hugging_face.open_model(base, folder, **given)
    own = Path(base) if Path(base).is_dir() else None
    files = [] if detached else hugging_face.content_folders(base, own, folder, given.get("revision"))
    model = LoraStudent(
        module,
        tokenizer,
        source=None if detached else str(folder),
        folders=files,
        load_options={key: str(value) if key == "dtype" else value for key, value in given.items()},
        **loading.asking_options(options),
    )
    model.training = training
    return model


def _write(folder: Path, student: Model, form: str, **more: Any) -> None:
    record = {} if student.training is None else {"training": training_record.plain(student.training)}
    saved.write(folder, {"kind": "student", "form": form, "name": student.name, **record, **more})
