"""Training records: made when a method has trained, written as JSON, and read back from files that nobody vouches for.

`evenhand.interfaces.TrainingRecord` says what is in one. A record is for reading: nothing that it names is opened.
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
"""Characters of a name; texts in settings and results may be longer."""
LONGEST_SPEC = 100_000
ROWS, NUMBERS = 100_000, 100
"""Most rows of a curve, and numbers in one."""
KEYS = 1000
"""Most settings, or packages with a version."""
LARGEST = 2**63
"""Counts and seeds are below that."""
PACKAGES = ("evenhand", "torch", "transformers")
_METHOD = re.compile(r"\w[\w.-]*", re.A)
Check = Callable[[Any, str], Any]
"""A check takes a value and its place, and returns the value or raises `_Wrong`."""


def record_of(method: Method, model: Model, **known: Any) -> TrainingRecord:
    """The record of a method that has trained: its settings, the model and the versions of today, and what is known.

    Args:
        method: With its settings.
        model: What the training began with.
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
    """What loads a model, for a record: without passwords, and None where nothing loads this very model.

    The source of a model with methods around it loads the weights below, and would be taken for the whole.
    """
    source = None if model.methods else model.unedited_source
    return None if source is None else str(without_passwords(source))


def without_passwords(value: Any) -> Any:
    """JSON values with the passwords in their URLs replaced, as saved models are passed on."""
    if isinstance(value, str):
        return without_user_info(value)
    if isinstance(value, Mapping):
        return {key: without_passwords(one) for key, one in value.items()}
    return [without_passwords(one) for one in value] if isinstance(value, list | tuple) else value


def brief(record: TrainingRecord, *, base: str | None = None) -> str:
    """The key facts of a record in one line, for reports: the data, how long it took, and the versions.

    Args:
        record: How something was trained.
        base: Name of the model that the sentence around the line gives; it is not repeated.
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
    """The versions of today that a record gives."""
    return {name: found for name, found in provenance.versions().items() if name in PACKAGES}


def plain(record: TrainingRecord) -> dict[str, Any]:
    """A record as JSON values, without what is not known."""
    content = {f.name: getattr(record, f.name) for f in fields(record)}
    content["base"], content["data"] = _known(asdict(record.base)), _known(asdict(record.data))
    content["curve"] = [dict(row) for row in record.curve]
    content["versions"], content["results"] = dict(record.versions), dict(record.results)
    content["settings"] = None if record.settings is None else dict(record.settings)
    return {key: value for key, value in content.items() if value not in (None, "", {}, [])}


def read(content: Any, file: Path, place: str = "training") -> TrainingRecord:
    """A record from JSON values, every one of which is checked.

    Args:
        content: What the file holds.
        file: Where it was found, for the message.
        place: The key there, for the message.

    Raises:
        EvenhandError: A value is of the wrong type, out of range or too large, or a key is not known. The message names
            the file and the key.
    """
    try:
        return TrainingRecord(**_object(content, place, _RECORD, required=("method",)))
    except _Wrong as error:
        raise EvenhandError(f"{file} is not as evenhand writes it: {error}; save the model again") from error


def of_facts(facts: Mapping[str, Any], file: Path, *, method: str = "") -> TrainingRecord:
    """A record from what earlier versions wrote: one object whose keys differed from method to method.

    Args:
        facts: What the file holds.
        file: Where it was found, for the message.
        method: The method's name, where the facts do not give it.

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
    """A value that no record has."""


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
    """A number of a curve; one that diverged is not finite."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _wrong(place, value)
    return value


def _mapping(most: int | None, check: Check | None = None) -> Check:
    """An object with up to so many keys; without a check, of any JSON values."""

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
    """An object of known keys, each checked by its own rule."""
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
