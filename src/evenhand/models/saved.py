"""evenhand.json, the one file that evenhand adds to a folder: its format, and what it may refer to without trust.

It records the methods around a model, or how the folder's content was trained. It is written last: until then it
marks the folder as unfinished.

The folder's content is not trusted. A folder may therefore refer to nothing outside itself but models by hub name
and evenhand's demo models: no code, endpoints, environment variables, local paths, or links out of it. Everything
that it would reach is listed before anything is opened, and only the caller can allow it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand.core import file_io, registry, training_record
from evenhand.errors import REASON, EvenhandError, SettingsError, short
from evenhand.interfaces import Method, TrainingRecord
from evenhand.models import demo_names, earlier_records, outside
from evenhand.models.asking import sampling_from
from evenhand.models.files import LEARNED, SAVED
from evenhand.models.json_files import read_json

VERSION = 2
"""Version of the format written. Before version 2, training records had files of their own; files without a version are
version 0, with no other difference."""
TRAINED = "trained"
"""Kind of a folder with weights, or an adapter, that a method has trained."""
UNFINISHED = "unfinished"
"""Kind of a folder whose saving has not finished."""
KINDS: dict[str, dict[str, type]] = {
    "endpoint": {"source": str},
    "mitigated": {"method": dict, "base": dict},
    "student": {"form": str, "name": str},
    TRAINED: {"training": dict},
    "learned": {"training": dict},
    UNFINISHED: {},
}
"""Required fields of each kind, with their types."""
MAY: dict[str, dict[str, type]] = {
    "endpoint": {"options": dict},
    "mitigated": {},
    "student": {"training": dict, "facts": dict, "asking": dict, "precision": dict, "max_length": int},
    TRAINED: {},
    "learned": {},
    UNFINISHED: {},
}
"""Optional fields of each kind; other fields are refused, since evenhand does not write them and cannot check them."""
OPTIONS: dict[str, type] = {
    **dict.fromkeys(("name", "answer_by", "too_long", "dtype", "device", "revision", "key_env", "tokenizer"), str),
    **dict.fromkeys(("trust_remote_code", "load_in_4bit", "load_in_8bit"), bool),
    **dict.fromkeys(("batch_tokens", "thinking_tokens"), int),
    "sampling": dict,
}
"""Types of options; other options are checked by the loader that accepts them."""
LONGEST = 1000
"""Maximum length of a text in characters; evenhand's own never reach it."""


def begin(folder: Path) -> None:
    """Mark a folder as unfinished until `write` or `drop`, so that a killed process leaves nothing that opens."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, {"kind": UNFINISHED})


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write evenhand.json, with its version; the last file of a folder."""
    file_io.write_text(folder / SAVED, json.dumps({"version": VERSION, **content}, indent=2))


def drop(folder: Path) -> None:
    """Remove evenhand.json from a folder that needs none."""
    file_io.remove(folder / SAVED)


def write_weights(folder: Path, record: TrainingRecord | None) -> None:
    """Finish a folder with weights or an adapter: with the record of their training, if there is one."""
    if record is None:
        drop(folder)
    else:
        write(folder, {"kind": TRAINED, "training": training_record.plain(record)})


def write_learned(folder: Path, record: TrainingRecord) -> None:
    """Finish a folder with what a method has learned and keeps for `restore`."""
    write(folder, {"kind": "learned", "training": training_record.plain(record)})


def training_of(folder: Path) -> TrainingRecord | None:
    """Return how the weights or the adapter in a folder were trained; None if unknown.

    Args:
        folder: Folder written by this or an earlier version of evenhand, or by other software.

    Raises:
        EvenhandError: The record is not as evenhand writes it, or the folder is unfinished.
    """
    if not (folder / SAVED).is_file():
        return earlier_records.next_to_weights(folder)
    content = read(folder)
    if "training" in content:
        return _with_present_names(training_record.read(content["training"], folder / SAVED))
    if "facts" in content:
        return earlier_records.of_student(folder, content["facts"], folder / SAVED)
    return None


def learned_of(folder: Path, method: str) -> TrainingRecord | None:
    """Return the record of what a method has learned and keeps for `restore`; None if there is none.

    Args:
        folder: Folder written by this or an earlier version of evenhand.
        method: Name of the method, which earlier versions did not write.

    Raises:
        EvenhandError: As for `training_of`.
    """
    known = (folder / SAVED).is_file()
    return training_of(folder) if known else earlier_records.of_learned(folder, method)


def is_finished(folder: Path) -> bool:
    """Return whether a folder has an evenhand.json that does not mark it as unfinished."""
    return (folder / SAVED).is_file() and read_json(folder / SAVED, unique=True).get("kind") != UNFINISHED


def holds_weights(folder: Path) -> bool:
    """Return whether a folder is opened by its weights, with evenhand.json used for the training record only."""
    return not (folder / SAVED).is_file() or read(folder)["kind"] == TRAINED


def adds_a_name(folder: Path) -> bool:
    """Return whether opening a folder adds its method to the inner model's name, so that `name` must not be passed."""
    return (folder / SAVED).is_file() and read(folder)["kind"] == "mitigated"


def read(folder: Path) -> dict[str, Any]:
    """Read evenhand.json and check its format; whether its content is allowed is checked by `check`.

    Raises:
        SettingsError: Its version is newer than this evenhand, or its kind is unknown.
        EvenhandError: It cannot be read, or is not as evenhand writes it.
    """
    file = folder / SAVED
    content = read_json(file, unique=True)
    version = content.get("version", 0)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise _malformed(file, f"its version is {version!r}")
    if version > VERSION:
        raise SettingsError(
            f"{file} has version {version}, but this evenhand reads up to {VERSION}; update evenhand, or save the "
            "model with this one"
        )
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(f"{file}: the kind {kind!r} is unknown to this version of evenhand")
    if kind == UNFINISHED:
        raise EvenhandError(f"{folder} is unfinished: its saving was interrupted; save the model again")
    _require(file, content, KINDS[kind])
    _allow(file, content, {"version": int, "kind": str, **KINDS[kind], **MAY[kind]})
    if kind == "mitigated":
        _require_base(file, content["base"])
    else:
        for options in ("options", "asking", "precision"):
            _require_options(file, content, options)
    if "training" in content:
        training_record.read(content["training"], file)
    return content


def check(folder: Path, *, trusted: bool, base: bool) -> None:
    """Refuse a saved folder that refers to something outside itself, unless the caller allowed it.

    Args:
        folder: A model folder of any kind; those without evenhand.json are not refused.
        trusted: Whether the caller gave `trust_folder=True`.
        base: Whether the caller gave the base, so that the one named in the folder is not opened.

    Raises:
        SettingsError: It does; the message lists what, and how to allow it. Or its method would have to be trained
            again, which cannot be allowed: opening a folder never trains.
        EvenhandError: Some evenhand.json in it cannot be read.
    """
    reached = wanted(folder, base=base)
    if not reached or trusted:
        for part in _parts(folder):
            _refuse_training(part)
        return
    raise SettingsError(
        f"{folder} asks for {'; '.join(reached)}. That is outside the folder, and whoever wrote it could have put "
        f"it there. If you trust the folder, allow all of it: evenhand.load({str(folder)!r}, trust_folder=True), on "
        f"the command line '{folder}(trust_folder=True)'. If it is only the base model, you can name that yourself: "
        f"base='FOLDER OR NAME', on the command line '{folder}(base=\"FOLDER OR NAME\")'"
    )


def wanted(folder: Path, *, base: bool = False) -> list[str]:
    """List what a folder would reach outside itself, each in a few words; arguments and errors as for `check`."""
    if not (folder / SAVED).is_file():
        return []
    return list(dict.fromkeys(what for part in _parts(folder) for what in _wanted(part, folder, base)))


def how_to_load(folder: Path) -> str:
    """Return the call of `evenhand.load` that opens a folder, for a user who wrote and trusts it."""
    return f"evenhand.load({str(folder)!r}{', trust_folder=True' if wanted(folder) else ''})"


def inside(folder: Path, name: str) -> Path:
    """Return the folder with a base that was saved in full.

    Raises:
        EvenhandError: The name is not that of a folder directly in this one.
    """
    if name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
        raise _malformed(folder / SAVED, f"the base's folder {name!r} is not the name of a folder inside this one")
    return folder / name


def base_of_adapter(folder: Path) -> str:
    """Return where an adapter's base is: a folder inside the adapter's, or the path or hub name in its file.

    For a demo model, which `save_module` writes by name, it is the folder in this installation.

    Raises:
        EvenhandError: The file cannot be read.
        SettingsError: The file names no base, or one that is not a valid path.
    """
    file = folder / "adapter_config.json"
    base = read_json(file).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise SettingsError(f"{file} names no base model (base_model_name_or_path)")
    try:
        own = not Path(base).is_absolute() and (folder / base).is_dir()
    except OSError as error:  # such as a name that is too long
        raise SettingsError(f"{file} names a base model whose path cannot be checked: {error.strerror}") from error
    return str((folder / base).resolve()) if own else demo_names.located(base)


# ------------------------------------------------------------------------------------- what a folder would reach


def _parts(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the folder, its saved base and learned part, and their parts in turn."""
    real = folder.resolve()
    if real in above:
        raise _malformed(above[-1] / SAVED, f"{folder} leads back to a folder that contains it")
    yield folder
    if not (folder / SAVED).is_file():
        return
    content = read(folder)
    base = content["base"] if content["kind"] == "mitigated" else {}
    below = [inside(folder, base["folder"])] if "folder" in base else []
    for part in (*below, folder / LEARNED):
        if part.is_dir():
            yield from _parts(part, (*above, real))


def _wanted(part: Path, top: Path, base: bool) -> Iterator[str]:
    """Yield what one part would reach outside the whole folder."""
    yield from _links(part, top)
    if (part / SAVED).is_file():
        yield from _of_content(read(part), base)
    # peft writes absolute paths of bases, and opens weights only. If the caller gives the adapter's folder, that is
    # what was asked for; deeper inside a folder it is not, nor in one that evenhand.json declares a student.
    plain = part == top and holds_weights(part)
    replaced = base and LEARNED not in part.relative_to(top).parts  # the learned part keeps its own base
    if not plain and not replaced and (part / "adapter_config.json").is_file():
        named = base_of_adapter(part)
        own = Path(named).resolve().is_relative_to(top.resolve()) or demo_names.name_of(named)
        if not own and outside.is_local(named):
            yield f"the local path {named!r} (base of the adapter {part.relative_to(top) if part != top else part})"


def _of_content(content: dict[str, Any], base: bool) -> Iterator[str]:
    model = {"mitigated": content.get("base"), "endpoint": content}.get(content["kind"]) or {}
    if "source" in model and not base and (reached := outside.of_source(model["source"])):
        yield reached
    options = {**model.get("options", {}), **_dict(content, "precision"), **_dict(content, "asking")}
    yield from filter(None, (outside.of_option(key, value) for key, value in options.items()))
    yield from outside.of_method(_dict(content, "method"))


def _links(part: Path, top: Path) -> Iterator[str]:
    """Yield links out of the folder, except those to the blobs of the hub's cache, of which a download consists."""
    root = top.resolve()
    allowed = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    for path in (part, *sorted(part.rglob("*"))):
        if path != top and path.is_symlink() and not any(path.resolve().is_relative_to(a) for a in allowed):
            yield f"{str(path.resolve())!r} (the link {path.relative_to(top)})"


def _dict(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key, {})
    return value if isinstance(value, dict) else {}


def _refuse_training(part: Path) -> None:
    """Refuse a saved method that learns if its learned part is missing: opening it would train it.

    Such methods need training data, or weights to change, plugins' methods included. Folders that
    evenhand writes for them always have that part.
    """
    if not (part / SAVED).is_file():
        return
    content = read(part)
    if content["kind"] != "mitigated":
        return
    given = {name: registry.with_present_names(name, _dict(content["method"], name)) for name in content["method"]}
    try:
        method = registry.build_method(given)  # without warnings, since it is built again when opened
    except SettingsError as error:
        raise SettingsError(f"{part / SAVED}: {error}") from error
    if (part / LEARNED).is_dir():
        if type(method).restore is Method.restore:
            raise _malformed(part / SAVED, f"{method.name} saves nothing that it learned, yet there is {LEARNED}/")
    elif method.needs_data or method.unsupported_reason(None) or "weights" in method.needs | method.needs_any:
        raise SettingsError(
            f"{part} has no {LEARNED}/, so opening would have to train {method.name}, which evenhand never does: "
            "get the complete folder, or open the base and apply the method to it yourself"
        )


# ------------------------------------------------------------------------------------------------------- its form


def _require(file: Path, content: dict[str, Any], shape: dict[str, type]) -> None:
    for key, kind in shape.items():
        if not isinstance(content.get(key), kind):
            raise _malformed(file, f"{key} is {content.get(key)!r}" if key in content else f"it has no {key!r}")


def _require_base(file: Path, base: dict[str, Any]) -> None:
    place = [key for key in ("folder", "source") if key in base]
    if len(place) != 1:
        raise _malformed(file, "its base must have either a 'folder' or a 'source'")
    _require(file, base, {place[0]: str, "fingerprint": str})
    _allow(file, base, {place[0]: str, "fingerprint": str, "options": dict})
    _require_options(file, base, "options")


def _allow(file: Path, content: dict[str, Any], shape: dict[str, type]) -> None:
    """Refuse what evenhand never writes: unknown keys, wrong types, and overlong texts."""
    for key, value in content.items():
        if key not in shape:
            raise _malformed(file, f"it has {key!r}")
        if not isinstance(value, shape[key]) or (shape[key] is int and isinstance(value, bool)):
            raise _malformed(file, f"{key} is {_brief(value)}")
        if isinstance(value, str) and len(value) > LONGEST:
            raise _malformed(file, f"{key} has {len(value)} characters")


def _require_options(file: Path, content: dict[str, Any], where: str) -> None:
    options = content.get(where, {})
    if not isinstance(options, dict):
        raise _malformed(file, f"{where} is {_brief(options)}")
    for key in ("trust_folder", "base"):
        if key in options:
            raise _malformed(file, f"only the caller of evenhand.load may give {key}")
    given = {key: value for key, value in options.items() if value is not None}
    known = {key: kind for key, kind in OPTIONS.items() if key in given}
    for key, kind in known.items():
        if not isinstance(given[key], kind) or (kind is int and isinstance(given[key], bool)):
            raise _malformed(file, f"the option {key} is {_brief(given[key])}")
    try:
        sampling_from(given.get("sampling", {}))
    except (SettingsError, TypeError, ValueError) as error:
        raise _malformed(file, f"the option sampling is {_brief(given['sampling'])} ({error})") from error


def _with_present_names(record: TrainingRecord) -> TrainingRecord:
    if record.settings is None:
        return record
    return replace(record, settings=registry.with_present_names(record.method, dict(record.settings)))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _malformed(file: Path, why: str) -> EvenhandError:
    return EvenhandError(f"{file} is not as evenhand writes it: {short(why, REASON)}; save the model again")
