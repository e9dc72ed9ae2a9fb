"""Plain facts about methods, benchmarks, data sets, ways to load a model, and this installation."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.cli import setting_facts
from evenhand.core import catalogue, provenance, registry
from evenhand.errors import DataError, EvenhandError, UnknownNameError

if TYPE_CHECKING:
    from evenhand.data.io.locate import Dataset

SHOWN = 5
"""Maximum number of file names in a list."""


def entry(kind: str, name: str) -> dict[str, Any]:
    """Describe one method or benchmark: description, settings with default and meaning, presets, metrics."""
    thing = registry.of_kind(kind).get(name)
    documented = getattr(thing, "__pydantic_fields__", {})
    facts: dict[str, Any] = {
        "name": name,
        "about": inspect.getdoc(thing) or "",
        **(_method_facts(name) if kind == "methods" else {}),
        "defined in": thing.__module__,
        "settings": {f.name: setting_facts.described(f.name, thing, documented) for f in fields(thing) if f.init},
        "presets": {n: dict(values) for n, values in thing.presets.items()},
    }
    if kind == "benchmarks":
        facts["metrics"] = {m.name: f"{m.about}; better: {m.direction}" for m in thing.metrics}
    return facts


def _method_facts(name: str) -> dict[str, str]:
    known = catalogue.method_facts(name)
    shown = {
        "needs": known.needs,
        "trains on": known.trains,
        "calls per question": known.calls,
        "source": known.source,
        "example": f"evenhand compare --methods {_quoted(known.example)}",
        "sweep": f"evenhand sweep --method {name} --vary {known.vary}" if known.vary else "",
    }
    return {key: value for key, value in shown.items() if value}


def _quoted(example: str) -> str:
    """Quote an example for a shell, if it has settings in brackets."""
    method, train, source = example.partition(catalogue.TRAIN)
    return (f"'{method}'" if "(" in method else method) + train + source


def model_forms() -> dict[str, str]:
    """List the forms of models that `evenhand.load` takes."""
    forms = {
        "ORG/NAME": "a causal language model on the Hugging Face hub",
        "FOLDER": "a model folder, a PEFT adapter's folder, or one saved by `evenhand debias`",
        "endpoint:URL#MODEL": "an OpenAI-compatible endpoint; the key comes from EVENHAND_API_KEY or OPENAI_API_KEY",
        "vllm:URL#MODEL": "a vLLM server, asked in token ids, so that it can score texts too",
        "demo, demo-b, demo-c, demo-d": "small models with planted biases; they need no network",
        "demo-x": "the demo with another axis, a second language and wanted differences, to measure spillover",
        "demo-mlm": "a small masked language model with planted pronoun skews",
        "oracle:DEMO": "the biases planted in a causal demo model, as a model that computes its answers from them",
    }
    plugins = [n for n in registry.models.names() if n not in registry.BUILT_IN["models"]]
    return forms | {f"{n}:...": "a plugin's loader" for n in plugins}


def data_sets() -> dict[str, dict[str, Any]]:
    """List every data set: whether and where it was found, its licence, and how to get it."""
    from evenhand.data.io import locate
    from evenhand.data.sets import DATASETS

    found = {}
    for dataset in DATASETS.values():
        found[dataset.name] = {
            "found": str(_folder(dataset) or f"no ({locate.FOLDER_VARIABLE} is {_base() or 'not set'})"),
            "licence": dataset.licence,
            "home": dataset.home,
            "gated": dataset.gated,
            "how to get it": locate.how_to_get(dataset),
        }
    return found


def data_check(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compare the files of data sets with the published ones.

    Args:
        names: Data sets to check; all that were found if empty.

    Returns:
        Per data set its folder, the numbers or names of files that are official, differ, or are missing, and what
        could not be compared: the first files without a published hash, how many more there are, and why.

    Raises:
        DataError: A named data set was not found (the message says how to get it), or none was.
    """
    from evenhand.data.io import locate
    from evenhand.data.io.checksums import check, not_compared
    from evenhand.data.sets import DATASETS

    wanted = [_data_set(name) for name in names] or [d for d in DATASETS.values() if _folder(d)]
    if not wanted:
        raise DataError(f"no data set was found ({locate.FOLDER_VARIABLE} is {_base() or 'not set'})")
    found = {}
    for dataset in wanted:
        folder = _folder(dataset)
        if folder is None:
            raise DataError(f"no {dataset.name} data. {locate.how_to_get(dataset)}")
        verdicts = check(dataset.name, folder)
        by = {v: [path for path, verdict in verdicts.items() if verdict == v] for v in ("differs", "missing")}
        official = sum(v == "official" for v in verdicts.values())
        others = not_compared(folder, verdicts)
        found[dataset.name] = {
            "folder": str(folder),
            "official": f"{official} of {len(verdicts)} files" if verdicts else "no published hashes are known",
            **by,
            "not compared": _shortened(others),
            "why not compared": _why_not(others, bool(verdicts), official),
        }
    return found


def _why_not(others: Sequence[str], has_hashes: bool, official: int) -> str:
    """Explain why files could not be compared, and what that leaves open."""
    if not has_hashes:
        return "no published hash of this data set is known, so its files cannot be verified"
    if not others:
        return "every file was compared"
    if not official:
        return "hashes are known only for the published files, and the files here have other names or another format"
    return "these files are not among the published ones, so no hash is known for them"


def _shortened(names: Sequence[str]) -> list[str]:
    """Return the first names and the number of the others."""
    more = len(names) - SHOWN
    return [*names[:SHOWN], *([f"and {more} more"] if more > 0 else [])]


def fetch(name: str, to: str | Path | None = None) -> Path:
    """Fetch a data set; see `evenhand.data.io.download.fetch`."""
    from evenhand.data.io import download

    return download.fetch(_data_set(name), to)


def _data_set(name: str) -> Dataset:
    from evenhand.data.sets import DATASETS

    if name in DATASETS:
        return DATASETS[name]
    shared = [dataset for dataset in DATASETS.values() if name in dataset.name.split("_")]  # esbbq is in esbbq_cabbq
    if len(shared) != 1:
        raise UnknownNameError("data set", name, DATASETS)
    return shared[0]


def _base() -> str | None:
    from evenhand.data.io import locate

    return os.environ.get(locate.FOLDER_VARIABLE)


def _folder(dataset: Dataset) -> Path | None:
    from evenhand.data.io import locate

    folder = locate.folder_of(dataset)
    return folder if folder is not None and folder.is_dir() else None


def doctor() -> dict[str, Any]:
    """Report the state of this installation, with the versions and settings here that are known to change numbers."""
    import torch

    from evenhand.core import known_effects  # imported here, since lists must appear at once

    cuda = torch.cuda.is_available()
    state: dict[str, Any] = {
        "versions": provenance.versions(),
        "git": provenance.git_state(),
        "accelerator": torch.cuda.get_device_name() if cuda else "none; models run on the CPU in float32",
        "threads": torch.get_num_threads(),
        "data": {name: facts["found"] for name, facts in data_sets().items()},
    }
    return {**state, **_usable(), "known effects": known_effects.applying()}


def _usable() -> dict[str, Any]:
    """Report the plugins and the demo model, or why a library that they need cannot be imported."""
    try:
        found = plugins()
    except ImportError as error:  # such as transformers' own, if it does not find accelerate's version
        told = " ".join(str(error).split())
        return {"broken installation": f"a library that evenhand needs cannot be imported: {told}"}
    try:
        from evenhand.models import load

        return {**found, "demo model": load("demo").facts()}
    except EvenhandError as error:
        return {**found, "demo model": f"cannot be made: {error}"}


def plugins() -> dict[str, Any]:
    """List, per kind, the names that work and the broken plugins: entry point, distribution and error."""
    found: dict[str, Any] = {}
    for kind in registry.BUILT_IN:
        known, words = registry.of_kind(kind), kind.replace("_", " ")
        found[words] = list(known.load_all())
        found[f"broken plugins ({words})"] = {
            name: {"entry point": one.entry_point, "distribution": one.distribution or "not known", "error": one.error}
            for name, one in known.broken().items()
        }
    return found
