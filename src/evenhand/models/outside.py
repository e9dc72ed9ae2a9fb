"""Find what texts and options in an untrusted saved folder refer to outside that folder, without opening anything."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path, PurePath
from typing import Any, Literal, get_args, get_origin, get_type_hints

from evenhand.core import registry, specs
from evenhand.errors import SettingsError
from evenhand.models.demo_names import NAMES as DEMOS

ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Attention that transformers itself implements; any other name is loaded from the hub as a kernel, which is code."""
CHECKED = (
    *("name", "answer_by", "sampling", "too_long", "thinking_tokens", "batch_tokens", "revision", "dtype", "device"),
    *("device_map", "load_in_4bit", "load_in_8bit", "trust_remote_code", "attn_implementation", "key_env", "tokenizer"),
)
"""Options of `evenhand.load` that open nothing, and those that `of_option` has a rule for."""
_HUB = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.A)
_OPTIONS = re.compile(r"\([^()]*=")
_PART = re.compile(r"""[:&@=,;#|<>()\[\]{}'"]""")
"""Separators of the names in a source, such as "datasets:NAME@CONFIGURATION:SPLIT" or "one & other"."""
_PLACE = re.compile(
    r"(.*_)?(output|cache|folder|files?|paths?|dir|directory|save|log|logs|export|artefacts?|root|home|place_to)(_.*)?"
)
"""Names of settings that say where something is stored or written."""


def of_source(text: str) -> str:
    """Return what opening a model by this specification reaches; "" for a hub name or a model shipped with evenhand.

    Args:
        text: Specification as for `evenhand.load`.
    """
    if _loader(text):
        return _of_loader(text.strip())
    if is_local(text) or is_local(text.strip()):
        return f"the local path {_shown(text.strip())}"
    return "" if _HUB.fullmatch(text) else f"the model {_shown(text)}, which is not a hub name"


def of_option(key: str, value: Any) -> str:
    """Return what an option of `evenhand.load` reaches, or ""."""
    if key == "trust_remote_code" and value:
        return "running code that comes with the base model (trust_remote_code)"
    if key == "key_env":
        return f"sending the value of the environment variable {value!r} (key_env)"
    if key == "attn_implementation" and value not in ATTENTION:
        return f"attention code from the hub (attn_implementation={value!r})"
    if key == "device_map" and "disk" in (value, *_texts(value)):
        return f"writing weights to the disk (device_map={_shown(str(value))})"
    if key == "tokenizer" and isinstance(value, str) and is_local(value):
        return f"the local path {value!r} (tokenizer)"
    if key in CHECKED:
        return ""
    return next((f"{what} (option {key})" for what in _reached(key, None, value) if what), "")


def of_method(method: dict[str, Any]) -> list[str]:
    """List what a saved method's settings reach: files, endpoints, plugins' loaders, models with options of their own.

    No method has to declare anything: every text is examined by `of_text`. In a setting that is a path by
    its type (a `Path`) or name (`output`, `cache`) every text counts, as it may be written to. Values
    that are the method's default, in one of its presets or enumerated by the setting's type were chosen by whoever
    wrote the method, and are left out.

    Args:
        method: {name: settings}, as `evenhand.models.mitigated.Mitigated` saves it.
    """
    found = []
    for name, settings in method.items():
        known, hints = _own_values(name), _hints(name)
        for key, value in _given(name, settings).items():
            own = any(_plain(value) == _plain(one) for one in known.get(key, []))
            reached = [] if own else _reached(key, hints.get(key), value)
            found += [f"{what} ({name}'s setting {key})" for what in reached if what]
    return found


def _given(name: str, settings: Any) -> dict[str, Any]:
    """Return settings by name; renamed ones by their present name, which determines their type and defaults."""
    return registry.with_present_names(name, settings) if isinstance(settings, dict) else {"": settings}


def _reached(key: str, hint: Any, value: Any) -> list[str]:
    place = bool(_PLACE.fullmatch(str(key))) or Path in _types(hint)
    chosen = [one for one in _types(hint) if isinstance(one, str)]
    texts = [text for text in _texts(value) if text not in chosen]
    return [of_text(text) or (f"the local path {_shown(text)}" if place and text.strip() else "") for text in texts]


def of_text(text: str) -> str:
    """Return what a text reaches if it is taken for a file, a data set or a model, or "".

    Whether a text would be opened is decided by the parser that would open it: `evenhand.load` reads as a
    specification with options whatever `specs.parse` reads, and sources of texts and training data are split at
    colons and the like. Anything else is a hub name, or a text that nothing opens.
    """
    if not text.strip():
        return ""
    if "://" in text:
        return f"the URL in {_shown(text)}"
    if _has_options(text):
        return f"the model {_shown(text.strip())} with options of its own"
    if loader := next(filter(None, map(_of_loader, (text.strip(), *_named(text)))), ""):
        return loader
    if source := _of_training_source(text):
        return source
    parts = [text, *(part.strip() for part in (text, *_PART.split(text)))]
    if local := next((part for part in parts if part and is_local(part)), ""):
        inside = "" if local.strip() == text.strip() else f" in {_shown(text)}"
        return f"the local path {_shown(local)}{inside}"
    if "datasets:" in text:
        return f"the data set {_shown(text)}"
    if os.path.expandvars(text) != text:
        return f"the environment variable in {_shown(text)}"
    return ""


def is_local(text: str) -> bool:
    """Return whether a text is a path, by its form or because such a file or folder exists."""
    if re.match(r"[/~\\]|[A-Za-z]:[/\\]", text) or text[:2] in ("./", ".\\") or ".." in PurePath(text).parts:
        return True
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # path too long, or with a null byte
        return False


def _named(text: str) -> list[str]:
    """Return the parts of a text that look like "scheme:rest"; in a sentence, a blank follows the colon."""
    pieces = re.split(r"""[\s&=,;|<>()\[\]{}'"]+""", text)
    return [piece for piece in pieces if piece.partition(":")[2]]


def _has_options(text: str) -> bool:
    """Whether `evenhand.load`, or a parser that splits texts for it, would read a specification with options."""
    if _OPTIONS.search(text):
        return True
    if not text.strip().endswith(")") or "(" not in text:
        return False
    try:
        specs.parse(text)
    except SettingsError:
        return False  # a bracket in a sentence, which no loader reads either
    except (RecursionError, MemoryError):
        return True
    return True


def _shown(text: str) -> str:
    """Return a text as errors quote it: without passwords, and shortened."""
    return specs.shown(text if len(text) <= 200 else f"{text[:200]}...")


def _loader(text: str) -> str:
    """Return the name of the loader that `evenhand.load` would call, or ""."""
    scheme = text.partition(":")[0].partition("(")[0].strip()
    return scheme if scheme in registry.models.names() else ""


def _of_loader(text: str) -> str:
    scheme, rest = _loader(text), text.partition(":")[2]
    if not scheme or text in DEMOS or (scheme in ("oracle", "judge") and rest in DEMOS):
        return ""
    if scheme in ("endpoint", "vllm"):
        return f"the endpoint {_shown(text)}"
    return f"the model {_shown(text)} of the loader {scheme!r}"


def _of_training_source(text: str) -> str:
    for part in text.split("&"):
        scheme = part.partition(":")[0].strip()
        if scheme in registry.training_sources and scheme not in registry.BUILT_IN["training_sources"]:
            return f"the training data {_shown(part.strip())} of a plugin"
    return ""


def _own_values(name: str) -> dict[str, list[Any]]:
    """Return for each setting its default and its values in presets; {} for an unknown method."""
    if name not in registry.methods.names():
        return {}
    cls = registry.methods.get(name)
    values: dict[str, list[Any]] = {f.name: [f.default] for f in fields(cls) if f.default is not MISSING}
    values["preset"] = ["default", *cls.presets]
    for preset in cls.presets.values():
        for key, value in preset.items():
            values.setdefault(key, []).append(value)
    return values


def _hints(name: str) -> dict[str, Any]:
    """Return the type of each setting of a method; {} if types cannot be resolved."""
    if name not in registry.methods.names():
        return {}
    try:
        return get_type_hints(registry.methods.get(name))
    except (NameError, TypeError):  # a plugin's types may be imported only for type checking
        return {}


def _types(hint: Any) -> list[Any]:
    """Return the classes in a type, and its enumerated values."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [hint, *(one for part in get_args(hint) for one in _types(part))]


def _plain(value: Any) -> Any:
    """Return a value as JSON represents it, without tuples or paths."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from (str(key), *_texts(one))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
