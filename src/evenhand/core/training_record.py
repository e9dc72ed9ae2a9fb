"""Training records: made when a method has trained, written as JSON, and read back from untrusted files.

`evenhand.interfaces.TrainingRecord` lists the fields. A record is for reading: nothing that it names is opened.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from evenhand.core import provenance
from evenhand.core.text_output import without_user_info
from evenhand.errors import EvenhandError
from evenhand.interfaces import Method, Model, TrainedFrom, TrainedOn, TrainingRecord

LONGEST = 1000
"""Maximum characters of a name; texts in settings and results may be longer."""
LONGEST_SPEC = 100_000
ROWS, NUMBERS = 100_000, 100
"""Maximum number of rows of a curve, and of numbers in a row."""
KEYS = 1000
"""Maximum number of settings, and of packages with a version."""
LARGEST = 2**63
"""Counts and seeds are below this."""
PACKAGES = ("evenhand", "torch", "transformers")
_METHOD = re.compile(r"\w[\w.-]*", re.A)
Check = Callable[[Any, str], Any]
"""Takes a value and its place, and returns the value or raises `_Wrong`."""


def record_of(method: Method, model: Model, **known: Any) -> TrainingRecord:
    """Make the record of a method that has trained: settings, model, today's versions, and other known fields.

    Args:
        method: The method, with its settings.
        model: The model that the training began with.
        **known: Other fields of `TrainingRecord`; `results` are JSON values.
    """
    given = method.settings
    base = TrainedFrom(name=model.name, source=source_of(model), fingerprint=model.fingerprint)
    seed = given.get("seed")
    return TrainingRecord(
        **{
            "method": method.name,
            "spec": without_passwords(method.spec),
            "settings": without_passwords(given),
            "base": base,
            "seed": seed if isinstance(seed, int) else None,
            "versions": versions(),
            **known,
            "results": json.loads(json.dumps(dict(known.get("results", {})))),  # as it will be read back
        }
    )


def source_of(model: Model) -> str | None:
    """Return what loads a model, for a record, without passwords; None if nothing loads this very model.

    The source of a model with methods around it loads only the weights below, so it is not recorded.
    """
    source = None if model.methods else model.unedited_source
    return None if source is None else str(without_passwords(source))


def without_passwords(value: Any) -> Any:
    """Replace passwords in the URLs of JSON values, as saved models are passed on."""
    if isinstance(value, str):
        return without_user_info(value)
    if isinstance(value, Mapping):
        return {key: without_passwords(one) for key, one in value.items()}
    return [without_passwords(one) for one in value] if isinstance(value, list | tuple) else value


def brief(record: TrainingRecord, *, base: str | None = None) -> str:
    """Summarize a record in one line for reports: the data, how long it took, and the versions.

    Args:
        record: How something was trained.
        base: Name of the model, if the surrounding sentence gives it; it is not repeated.
    """
    data = record.data
    found = {
        "from": None if record.base.name == base else record.base.name,
        data.unit: data.training,
        "held out": data.validation,
        "left out because a benchmark asks them": data.overlap_removed,
        "epochs": record.epochs,
        "optimizer steps": record.steps,
        "weights of epoch": record.best_epoch,
        "seconds": record.seconds,
        "seed": record.seed,
        **record.versions,
    }
    return ", ".join(f"{name}: {value}" for name, value in found.items() if value is not None)


def versions() -> dict[str, str]:
    """Return the present versions that a record gives."""
    return {name: found for name, found in provenance.versions().items() if name in PACKAGES}


def plain(record: TrainingRecord) -> dict[str, Any]:
    """Return a record as JSON values, without fields that are not known."""
    content = {f.name: getattr(record, f.name) for f in fields(record)}
    content["base"], content["data"] = _known(asdict(record.base)), _known(asdict(record.data))
    content["curve"] = [dict(row) for row in record.curve]
    content["versions"], content["results"] = dict(record.versions), dict(record.results)
    content["settings"] = None if record.settings is None else dict(record.settings)
    return {key: value for key, value in content.items() if value not in (None, "", {}, [])}


def read(content: Any, file: Path, place: str = "training") -> TrainingRecord:
    """Read a record from JSON values, every one of which is checked.

    Args:
        content: Content of the file.
        file: File that it was read from, for the message.
        place: Key in the file, for the message.

    Raises:
        EvenhandError: A value is of the wrong type, out of range or too large, or a key is not known. The message names
            the file and the key.
    """
    try:
        return TrainingRecord(**_object(content, place, _RECORD, required=("method",)))
    except _Wrong as error:
        raise EvenhandError(f"{file} is not as evenhand writes it: {error}; save the model again") from error


def of_facts(facts: Mapping[str, Any], file: Path, *, method: str = "") -> TrainingRecord:
    """Read a record that earlier versions wrote: one object whose keys differed from method to method.

    Args:
        facts: Content of the file.
        file: File that it was read from, for the message.
        method: The method's name, if the facts do not give it.

    Raises:
        EvenhandError: A value is of the wrong type, out of range or too large.
    """
    left = dict(facts)
    spec = left.pop("method", method)
    content: dict[str, Any] = {
        "method": spec.partition("(")[0] if isinstance(spec, str) else spec,
        "spec": spec,
        "data": {},
        "base": {},
    }
    for unit in ("texts", "pairs", "questions", "lessons"):
        for key, count in ((unit, "training"), (f"held_out_{unit}", "validation")):
            if key in left:
                content["data"] |= {"unit": unit, count: left.pop(key)}
    content |= {key: left.pop(key) for key in ("best_epoch", "curve", "seconds", "steps") if left.get(key) is not None}
    name = left.pop("base") if "base" in left else left.get("teacher")
    content["base"] = {} if name is None else {"name": name}
    return read({**content, "results": left}, file, "what it says of the training")


def _known(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if value is not None}


# ----------------------------------------------------------------------------------------------------- the checks


class _Wrong(Exception):
    """A value that no record may have."""


def _wrong(place: str, value: Any) -> _Wrong:
    text = repr(value)
    return _Wrong(f"{place} is {text if len(text) <= 200 else f'{text[:200]}...'}")


def _text(longest: int, pattern: re.Pattern[str] | None = None) -> Check:
    def check(value: Any, place: str) -> str:
        if not isinstance(value, str) or (pattern is not None and not pattern.fullmatch(value)):
            raise _wrong(place, value)
        if len(value) > longest:
            raise _Wrong(f"{place} has {len(value)} characters, more than {longest}")
        return value

    return check


def _whole(least: int) -> Check:
    def check(value: Any, place: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < LARGEST:
            raise _wrong(place, value)
        return value

    return check


def _seconds(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _wrong(place, value)
    return value


def _number(value: Any, place: str) -> float | None:
    """Check a number of a curve; it is not finite if the training diverged."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _wrong(place, value)
    return value


def _mapping(most: int | None, check: Check | None = None) -> Check:
    """Check an object of at most `most` keys; without a check, its values may be any JSON."""

    def checked(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(place, value)
        if most is not None and len(value) > most:
            raise _Wrong(f"{place} has {len(value)} entries, more than {most}")
        for key, one in value.items():
            if not isinstance(key, str) or (most is not None and len(key) > LONGEST):
                raise _wrong(f"a key of {place}", key)
            if check is not None:
                check(one, f"{place}.{key}")
        return value

    return checked


def _curve(value: Any, place: str) -> tuple[dict[str, float | None], ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(place, value)
    if len(value) > ROWS:
        raise _Wrong(f"{place} has {len(value)} rows, more than {ROWS}")
    row = _mapping(NUMBERS, _number)
    return tuple(row(one, f"{place}[{n}]") for n, one in enumerate(value))


def _object(value: Any, place: str, known: Mapping[str, Check], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check an object of known keys, each by its own rule."""
    if not isinstance(value, dict):
        raise _wrong(place, value)
    for key in required:
        if key not in value:
            raise _Wrong(f"{place} has no {key!r}")
    if unknown := [key for key in value if key not in known]:
        raise _wrong(f"a key of {place}", unknown[0])
    return {key: known[key](one, f"{place}.{key}") for key, one in value.items()}


_BASE: dict[str, Check] = {"name": _text(LONGEST), "source": _text(LONGEST), "fingerprint": _text(LONGEST)}
_DATA: dict[str, Check] = {
    "unit": _text(LONGEST, re.compile(r"\w+", re.A)),
    "source": _text(LONGEST_SPEC),
    "hash": _text(LONGEST),
    **dict.fromkeys(("training", "validation", "overlap_removed"), _whole(0)),
}
_RECORD: dict[str, Check] = {
    "method": _text(LONGEST, _METHOD),
    "spec": _text(LONGEST_SPEC),
    "settings": _mapping(KEYS),
    "base": lambda value, place: TrainedFrom(**_object(value, place, _BASE)),
    "data": lambda value, place: TrainedOn(**_object(value, place, _DATA)),
    "precision": _text(LONGEST),
    "seed": _whole(-LARGEST),
    "epochs": _whole(0),
    "steps": _whole(0),
    "best_epoch": _whole(-1),
    "curve": _curve,
    "seconds": _seconds,
    "versions": _mapping(KEYS, _text(LONGEST)),
    "results": _mapping(None),
}
