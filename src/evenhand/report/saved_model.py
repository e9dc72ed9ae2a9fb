"""Description of a saved folder for its model card: the methods around the base, their settings and training.

No model is opened or loaded for it, and the folder's content is not trusted: the readers of `evenhand.models.saved`
check it, and paths of the machine that wrote the folder are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core import registry
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import TrainingRecord
from evenhand.models import demo_names, outside, saved
from evenhand.models.files import LEARNED, SAVED

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.A)


class Applied(NamedTuple):
    """A method of a saved folder."""

    name: str
    spec: str
    settings: Mapping[str, Any]
    """All settings, under their current names."""
    training: TrainingRecord | None
    """Record of its training or fitting; None if there was none, or if it is unknown."""


class SavedModel(NamedTuple):
    """A folder with a mitigated or trained model."""

    folder: Path
    applied: tuple[Applied, ...]
    """The methods, innermost first, as in a stack's spec."""
    base: str
    """Name of the model below the methods, without a path; "" if unknown."""
    hub: str
    """Name of the base on the hub, ORG/NAME; "" if it is not there."""
    fingerprint: str
    """Fingerprint of the base; "" if unknown."""
    form: str
    """adapter, weights, or method: whether other programs can open the folder."""

    @property
    def spec(self) -> str:
        """The methods in the form that `compare` takes."""
        return "+".join(method.spec for method in self.applied)

    @property
    def demo(self) -> bool:
        """Whether the base is a demo model."""
        return self.base in demo_names.NAMES

    @property
    def how_to_load(self) -> str:
        """Arguments of `evenhand.load` after the folder's name."""
        return ", trust_folder=True" if saved.wanted(self.folder) else ""


def describe(folder: str | Path) -> SavedModel:
    """Read what is in a saved folder.

    Raises:
        EvenhandError: The folder has no method of evenhand, or a file in it does not have the expected form.
    """
    place = Path(folder)
    if not place.is_dir():
        raise SettingsError(f"there is no folder {place}; name one that `evenhand debias` or Model.save wrote")
    content = saved.read(place) if (place / SAVED).is_file() else {}
    if content.get("kind") == "mitigated":
        return _mitigated(place, content)
    record = saved.training_of(place) if content.get("kind") != "endpoint" else None
    if record is None:
        raise EvenhandError(
            f"{place} has no method of evenhand: a card needs a folder that `evenhand debias` or Model.save wrote for "
            "a mitigated or trained model"
        )
    form = "adapter" if (place / "adapter_config.json").is_file() else "weights"
    base = record.base
    applied = Applied(record.method, record.spec or record.method, dict(record.settings or {}), record)
    return SavedModel(place, (applied,), *_named(base.source or base.name or ""), base.fingerprint or "", form)


def _mitigated(folder: Path, content: dict[str, Any]) -> SavedModel:
    """Describe a method around a base, which may itself be in the folder and have methods around it."""
    outer, base = _applied(folder, content["method"]), content["base"]
    inner = saved.inside(folder, base["folder"]) if "folder" in base else None
    if inner is not None and saved.adds_a_name(inner):
        below = describe(inner)
        return below._replace(folder=folder, applied=(*below.applied, outer), form="method")
    named = _named(base.get("source", ""), base.get("options", {}).get("name") or "")
    if inner is not None and (inner / SAVED).is_file():
        below = describe(inner)  # a trained base: its method is part of the stack
        return below._replace(folder=folder, applied=(*below.applied, outer), form="method")
    return SavedModel(folder, (outer,), *named, base["fingerprint"], "method")


def _applied(folder: Path, method: Mapping[str, Any]) -> Applied:
    ((name, given),) = method.items()
    settings = registry.with_present_names(name, dict(given))
    try:
        spec = registry.build_method({name: settings}).spec
    except SettingsError:  # a plugin that is not installed here
        spec = name
    learned = folder / LEARNED
    return Applied(name, spec, settings, saved.learned_of(learned, name) if learned.is_dir() else None)


def _named(source: str, name: str = "") -> tuple[str, str]:
    """Return a model's name without a path or server address, and its name on the hub."""
    if demo := demo_names.name_of(source):
        return demo, ""
    if _HUB.fullmatch(source) and not outside.is_local(source):
        return source, source
    text = name or (source.rpartition("#")[2] if "://" in source else source)
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1], ""
