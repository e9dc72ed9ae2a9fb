"""Methods that train: a result is made once, checked, saved before it is used, and found again.

`apply` goes through the same steps for every method:

1. `prepared` reads the training data, and refuses what cannot be trained.
2. A key is made of everything that decides the result. If a result is stored under it, nothing is trained.
3. Otherwise, under a lock, `train` trains. A run that was killed resumes from the checkpoints in the folder.
4. `check` refuses a result whose logits are not finite; `keep` saves it; `clean` removes the checkpoints.
5. `opened` opens what was saved, so that a fresh result and one that is found again are the same.

If several processes were launched together, all take steps 1, 3 and 5, and the first one alone takes the others
(`evenhand.training.shared_artifacts`).

A new method must define what it learns from (`prepared`) and how (`train`); the other steps have defaults, for students
that are local language models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from evenhand.core.artifacts import made_with
from evenhand.core.hashing import digest
from evenhand.core.training_record import record_of
from evenhand.errors import SettingsError
from evenhand.interfaces import Method, Model, OverlapRemoved, TrainData, TrainedOn, TrainingRecord
from evenhand.prompting.remarks import remark, remarked
from evenhand.training.shared_artifacts import shared_artefact

NOTHING = OverlapRemoved()
"""Stands for data that nobody checked for overlap."""


class Fitted(NamedTuple):
    """The result of a training before it is saved."""

    module: Any
    """The trained network; None where the result is something else."""
    known: Mapping[str, Any]
    """How the training went: fields of `evenhand.interfaces.TrainingRecord` by name, such as data, epochs, curve,
    seconds and results. Method, settings, base, seed and versions are filled in."""
    more: Any = None
    """What else `keep` needs."""


class Kept(NamedTuple):
    """Where a finished result is stored."""

    folder: Path
    """Removed at the end of the context, unless artefacts are kept."""
    fresh: bool
    """Whether the result was trained just now, rather than found."""


class TrainedMethod(Method):
    """Base class of methods that train; the docstring of the module describes the steps."""

    training_version: ClassVar[int] = 1
    """Version of the training, part of the key. Raise it when the same settings and data give another result."""
    not_in_key: ClassVar[frozenset[str]] = frozenset({"device"})
    """Settings that the result does not depend on, or depends on through what `content` returns."""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Train on the data, or open what was trained before; the given model is not changed.

        Raises:
            SettingsError: The method cannot use the model or the data.
            DivergedError: The trained model gives no finite scores.
        """
        reason = self.unsupported_reason(model, data)
        if reason:
            raise SettingsError(reason)
        data = data or TrainData()
        with self.trained_once(model, self.prepared(model, data), data.overlap_removed) as kept:
            made = self.opened(model, kept.folder)
            if not kept.fresh and made.training is not None:
                for text in made.training.results.get("remarks", ()):
                    remark(str(text))
        return made

    @contextmanager
    def trained_once(self, model: Model, prepared: Any, overlap: OverlapRemoved = NOTHING) -> Iterator[Kept]:
        """Yield the result of a training on `prepared`: found, or trained, checked and saved now.

        Args:
            model: What is trained or taught from.
            prepared: From `prepared`.
            overlap: What the comparison has removed from the training data, for the record.
        """
        fresh: list[Path] = []

        def train(folder: Path) -> tuple[Fitted | None, Sequence[str]]:
            fresh.append(folder)
            with remarked() as remarks:
                made = self.train(model, prepared, folder)
            return made, remarks

        def keep(folder: Path, trained: tuple[Fitted | None, Sequence[str]]) -> None:
            made, remarks = trained
            if made is None:
                return
            self.check(model, made)
            self.keep(model, made, self._record(model, made.known, overlap, remarks), folder)
            self.clean(folder)

        def device() -> str:
            return str(self.made_with(model, prepared)[1])

        with shared_artefact(self.key(model, prepared), train, keep, device) as folder:
            yield Kept(folder, bool(fresh))

    def key(self, model: Model, prepared: Any) -> str:
        """Return the hash of everything that decides the result."""
        return digest(
            self.name,
            self.training_version,
            self.made_with(model, prepared),
            model.fingerprint,
            self.key_settings(leave_out=self.not_in_key),
            *self.content(prepared),
        )

    def _record(
        self, model: Model, known: Mapping[str, Any], overlap: OverlapRemoved, remarks: Sequence[str]
    ) -> TrainingRecord:
        data: TrainedOn = known.get("data", TrainedOn())
        if data.source is None:  # else the method reads data of its own, of which nothing was left out
            data = replace(data, overlap_removed=asdict(overlap).get(data.unit, data.overlap_removed))
        results = {**known.get("results", {}), **({"remarks": list(remarks)} if remarks else {})}
        return record_of(self, model, **{**known, "data": data, "results": results})

    # ----------------------------------------------------------------------------------------------- what differs

    @abstractmethod
    def prepared(self, model: Model, data: TrainData) -> Any:
        """Return what is learned from, in the form that `content` and `train` take.

        Raises:
            SettingsError: There is too little data, or it does not fit the model.
        """

    @abstractmethod
    def train(self, model: Model, prepared: Any, folder: Path) -> Fitted | None:
        """Train without changing the model.

        Args:
            model: What is trained or taught from.
            prepared: From `prepared`.
            folder: For checkpoints; it may contain those of a run that was killed.

        Returns:
            The result, or None if another process saves it. Of several processes, the first one saves its result.
        """

    def content(self, prepared: Any) -> Sequence[object]:
        """Return what decides the result besides the model and the settings; its `repr` must be stable."""
        return [prepared]

    def made_with(self, model: Model, prepared: Any) -> list[str | int]:
        """Return where and how the numbers are computed (`evenhand.core.artifacts.made_with`)."""
        return made_with(model, precision=None)

    @property
    def remedy(self) -> str:
        """What to do about a training that diverged."""
        return "take a lower learning_rate"

    def check(self, model: Model, made: Fitted) -> None:
        """Refuse a trained module whose logits are not finite where the model's are, in its own precision.

        Raises:
            DivergedError: Its logits are not finite.
        """
        from evenhand.training.finite import probes, refuse_broken

        module, tokenizer = model.weights
        texts = probes(tokenizer, model.context_length)
        refuse_broken(made.module, module, texts, self.remedy, what=f"what {self.name} has trained")

    def keep(self, model: Model, made: Fitted, record: TrainingRecord, folder: Path) -> None:
        """Save the result in a folder for `opened`: the record last, as a folder without it is unfinished."""
        from evenhand.training.students import keep

        keep(made.module, model.weights.tokenizer, record, folder)

    def clean(self, folder: Path) -> None:
        """Remove what is needed only to resume."""
        from evenhand.training.checkpoints import Checkpoints

        Checkpoints(folder, {}).remove()

    def opened(self, model: Model, folder: Path) -> Model:
        """Open the result with its record, from a folder that may be removed later."""
        from evenhand.training.students import open_trained

        return open_trained(folder, model, f"{model.name}+{self.spec}")
