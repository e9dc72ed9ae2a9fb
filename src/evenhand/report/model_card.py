"""Model cards of saved folders, in the hub's format: README.md with a YAML header and Markdown.

A card states what was done to which model, what it was fitted on, what a run found before and after, on which groups it
got worse, what it is for and what it is not. Numbers need a run in which the same method was compared on the
same base; without one, the card says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core import catalogue, file_io, provenance, registry
from evenhand.core.records import Record
from evenhand.core.text_output import count, duration
from evenhand.core.training_record import without_passwords
from evenhand.errors import SettingsError
from evenhand.interfaces import TrainingRecord
from evenhand.report.before_after import before_after, rows_of, run_facts
from evenhand.report.bibliography import bibtex
from evenhand.report.filled import filled
from evenhand.report.saved_model import SavedModel, describe
from evenhand.report.text import DEMO_LABEL

if TYPE_CHECKING:
    from evenhand.report.analysis import Analysis

FILE = "README.md"
MARK = "<!-- This card was written by evenhand. -->"
"""Mark in every card that evenhand writes, so that no other card is replaced."""


class Fitted(NamedTuple):
    """Facts about what one method was fitted on, as lines of text by name."""

    method: str
    facts: dict[str, str]


def write_card(
    folder: str | Path,
    report: Analysis | None = None,
    *,
    method: str = "",
    model: str = "",
    train_source: str = "",
    overwrite: bool = False,
) -> Path:
    """Write the card of a saved folder as README.md in that folder.

    Args:
        folder: Folder that `evenhand debias` or `Model.save` wrote.
        report: Run with the numbers, as for `model_card`.
        method: Row of the run.
        model: Model of the run.
        train_source: Where the training data come from.
        overwrite: Whether to replace a README.md that evenhand did not write. One that it wrote is always replaced.

    Returns:
        Path of the file.

    Raises:
        SettingsError: There is a README.md that evenhand did not write; otherwise as for `model_card`.
    """
    file = Path(folder) / FILE
    text = model_card(folder, report, method=method, model=model, train_source=train_source)
    if not overwrite and has_other_card(folder):
        raise SettingsError(
            f"{file} was not written by evenhand and would be replaced; give overwrite=True (--overwrite), or move it"
        )
    file_io.write_text(file, text)
    return file


def has_other_card(folder: str | Path) -> bool:
    """Whether a folder has a README.md that evenhand did not write."""
    file = Path(folder) / FILE
    return file.is_file() and MARK not in file.read_text(encoding="utf-8", errors="replace")


def model_card(
    folder: str | Path, report: Analysis | None = None, *, method: str = "", model: str = "", train_source: str = ""
) -> str:
    """Return the card of a saved folder.

    Args:
        folder: Folder that `evenhand debias` or `Model.save` wrote.
        report: A run in which the folder's method was compared on its base; None leaves the numbers out.
        method: Row of the run with the method, if its name differs from that in the folder, such as with seeds.
        model: Model of the run, if several have the fingerprint of the base, or if that is unknown.
        train_source: Source of the training data, if the folder does not name it.

    Returns:
        YAML header and Markdown; names from models, data and plugins are escaped.

    Raises:
        SettingsError: The run has no such row, or its model is another one than the folder's base.
        EvenhandError: The folder has no method of evenhand, or does not have the form that evenhand writes.
    """
    found = describe(folder)
    rows = [] if report is None else rows_of(report, found, method, model)
    listed = catalogue.listing("methods")
    title = f"{found.base or 'A language model'} under {found.spec}"
    return filled(
        "model_card.md.j2",
        markup=False,
        header=_header(found, title, rows),
        mark=MARK,
        title=title,
        found=found,
        about={m.name: listed.get(m.name, "") for m in found.applied},  # without methods that are not installed
        name=_folder_name(found),
        demo=DEMO_LABEL if found.demo else "",
        measured=[] if report is None else before_after(report, rows),
        run=None if report is None else run_facts(report, rows),
        fitted=[_fitted(m.spec, m.training, train_source) for m in found.applied if m.training is not None],
        unfitted={m.spec: _nothing(m.name) for m in found.applied if m.training is None},
        settings={m.spec: json.dumps(_portable(m.settings), indent=1, default=str) for m in found.applied},
        citations=bibtex([m.name for m in found.applied], dict.fromkeys(r.benchmark for r in rows)),
        version=provenance.versions().get("evenhand", ""),
    )


# ---------------------------------------------------------------------------------------------------- the header


def _header(found: SavedModel, title: str, rows: Sequence[Record]) -> str:
    """Write the YAML that the hub reads: the base, the relation to it, and the numbers of a run."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=r.benchmark.partition("(")[0],
            dataset_name=r.benchmark,
            metric_type=r.metric,
            metric_value=round(r.value, 4),
        )
        for r in rows
        if r.main and r.group == "overall" and not math.isnan(r.value)
    ]
    relation = {"adapter": "adapter", "weights": "finetune"}.get(found.form)
    more: dict[str, Any] = {"base_model_relation": relation} if found.hub and relation else {}
    known = ModelCardData(
        base_model=found.hub or None,
        library_name="evenhand" if found.form == "method" else "peft" if found.form == "adapter" else "transformers",
        tags=["evenhand", "bias-mitigation", *dict.fromkeys(m.name for m in found.applied)],
        model_name=title if results else None,
        eval_results=results or None,
        **more,
    )
    return known.to_yaml().strip()


# ---------------------------------------------------------------------------------------------------- the training


def _fitted(spec: str, record: TrainingRecord, train_source: str) -> Fitted:
    """Collect the facts of a training record about what a method was fitted on."""
    data = record.data
    removed = data.overlap_removed
    known = {
        "training data": _without_folders(data.source or train_source),
        data.unit: _counted(data.training),
        "held out": _counted(data.validation),
        "left out because a benchmark asks them": "not known: no benchmark was compared with the data"
        if removed is None
        else count(removed),
        "hash of the data": data.hash,
        "base": _without_folders(record.base.name or ""),
        "fingerprint of the base": record.base.fingerprint,
        "epochs": _counted(record.epochs),
        "optimizer steps": _counted(record.steps),
        "seed": None if record.seed is None else str(record.seed),
        "precision": {"no": "float32"}.get(record.precision or "", record.precision),
        "took": None if record.seconds is None else duration(record.seconds),
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
    return Fitted(spec, {name: value for name, value in known.items() if value})


def _nothing(name: str) -> str:
    """Return the text for a method without a training record."""
    if name in registry.methods.names() and not catalogue.method_facts(name).trains:
        return "nothing, as it changes prompts, decoding or the reading of answers."
    return "not recorded."


def _portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Remove passwords in URLs and folders of this machine from settings."""
    safe: dict[str, Any] = without_passwords(settings)
    return {name: _without_folders(value) if isinstance(value, str) else value for name, value in safe.items()}


def _counted(value: int | None) -> str | None:
    return None if value is None else count(value)


def _without_folders(source: str) -> str:
    """Return the source of data without the folders of the machine on which it was read."""
    return " & ".join(_last(part) for part in source.split(" & "))


def _last(part: str) -> str:
    path = Path(part.strip())
    return path.name if path.is_absolute() or part.startswith(("~", "..")) else part.strip()


def _folder_name(found: SavedModel) -> str:
    return found.folder.resolve().name
