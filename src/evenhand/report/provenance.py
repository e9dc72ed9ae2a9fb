"""Where the numbers of a run come from: the command, settings, versions, data and its licences, seeds and training.

All of it is in the run's manifest. Here it is arranged in sections of plain text, which the page and the summary lay
out in their own way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core import registry
from evenhand.core.records import Record
from evenhand.core.text_output import count, duration
from evenhand.report.gaps import without_numbers

UNKNOWN = "not known"
OWN_DATA = "evenhand's own (Apache-2.0)"
MAX_HASHES = 3
"""Maximum number of files whose hashes are listed; beyond it their number is given, and the manifest has every hash."""
FILES = {
    "report.html": "this report as a page",
    "summary.md": "the same as Markdown",
    "scores.parquet": "all numbers",
    "manifest.json": "everything that is listed here, and more",
    "sessions.jsonl": "every session that worked on this run",
}
"""Files of a run folder that a reader may open, with their contents."""
SETTINGS = ("limit", "answer_by", "temperature", "samples", "seeds", "wordings")


class Fact(NamedTuple):
    """One line of a section."""

    name: str
    text: str
    link: str = ""
    """Path of a file, relative to the run folder; "" if there is none."""


class Section(NamedTuple):
    """A group of facts that belong together."""

    title: str
    facts: list[Fact]


def provenance(manifest: Mapping[str, Any], records: Sequence[Record], folder: Path | None = None) -> list[Section]:
    """Collect what a run rests on, in sections; those about which nothing is known are left out.

    Args:
        manifest: Manifest of the run. One of an earlier version has fewer facts.
        records: The run's numbers, which include what was not applicable or failed.
        folder: The run folder, whose files are linked; None for a run in memory.

    Returns:
        Plain text that may contain names from models, data and plugins, and must be escaped by the view.
    """
    if manifest.get("runs"):
        return _joined(manifest, records)
    made = {
        "How it was made": _made(manifest),
        "Settings": _settings(manifest),
        "Models": _models(manifest),
        "Data": _data(manifest),
        "Training": _training(manifest),
        "Without numbers": _without_numbers(records),
        "Versions": _versions(manifest),
        "Files": _files(folder),
    }
    return _sections(made)


def _sections(made: Mapping[str, Iterable[Fact]]) -> list[Section]:
    sections = [Section(title, list(facts)) for title, facts in made.items()]
    return [section for section in sections if section.facts]


def _joined(manifest: Mapping[str, Any], records: Sequence[Record]) -> list[Section]:
    """Return, for a report of several runs, how each of them was made and what they share."""
    runs = manifest["runs"]
    shared = {"models": manifest.get("models", {})}
    return _sections(
        {
            "How it was made": (fact for run in runs for fact in _of_run(run, _folder(run), _made(run))),
            "Settings": [
                *(fact for run in runs for fact in _of_run(run, _settings(run))),
                *_settings({"statistics": manifest.get("statistics", {})}),
            ],
            "Models": _models(manifest),
            "Data": _data(manifest),
            "Training": [*_training(shared), *(fact for run in runs for fact in _of_run(run, _training(run)))],
            "Without numbers": _without_numbers(records),
            "Versions": (fact for run in runs for fact in _of_run(run, _versions(run))),
        }
    )


def _folder(run: Mapping[str, Any]) -> list[Fact]:
    return [Fact("folder", str(run["folder"]))] if run.get("folder") else []


def _of_run(run: Mapping[str, Any], *found: Iterable[Fact]) -> Iterator[Fact]:
    """Yield the facts of one run of several, with its label before their names."""
    for fact in (fact for facts in found for fact in facts):
        yield fact._replace(name=f"{run['name']}: {fact.name}")


def _made(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    python = "none: evenhand.compare was called from Python" if "command" in manifest else UNKNOWN
    yield Fact("command", manifest.get("command") or python)
    if started := manifest.get("started"):
        yield Fact("started", str(started))
    if "seconds" in manifest:
        yield Fact("took", f"{duration(manifest['seconds'])} in its last session")
    else:
        yield Fact("took", f"{UNKNOWN}: the last session did not end")
    yield Fact("seed", f"{manifest.get('seed', 0)} (selection of items, and bootstrap)")


def _settings(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    for name in SETTINGS:
        if manifest.get(name) not in (None, (), [], 1):
            yield Fact(name.replace("_", " "), _plain(manifest[name]))
    for name, value in manifest.get("statistics", {}).items():
        yield Fact(name, _plain(value))


def _models(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    for name, facts in manifest.get("models", {}).items():
        known = {
            "": facts.get("source", "from memory"),
            "precision": facts.get("dtype"),
            "device": facts.get("device"),
            "parameters": _count(facts.get("parameters")),
            "prompts": facts.get("prompt_format"),
            "answers by": facts.get("answer_by"),
            "fingerprint": facts.get("fingerprint"),
            "not followed of its generation_config": facts.get("generation_config_ignored"),
        }
        yield Fact(name, "; ".join(f"{key} {_plain(value)}".strip() for key, value in known.items() if value))


def _data(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    for spec, facts in manifest.get("benchmarks", {}).items():
        dropped = facts.get("dropped", [])
        known = [
            f"{_count(facts.get('asked')) or '?'} items asked of {_count(facts.get('rows')) or '?'}",
            f"from {facts.get('source', '?')}",
            f"licence: {licence(facts)}",
            *_hashes(facts),
            *map(str, facts.get("notes", [])),
            *([f"{len(dropped)} lines left out, the first: {dropped[0]}"] if dropped else []),
        ]
        yield Fact(spec, "; ".join(known))


def licence(facts: Mapping[str, Any]) -> str:
    """Return the licence of a benchmark's data, as its publishers state it.

    Args:
        facts: Facts of the benchmark, from a manifest.
    """
    from evenhand.data.sets import DATASETS  # imported only when needed, since it imports the reader of every data set

    name = str(facts.get("name", ""))
    if name == "option_order":
        name = str(facts.get("settings", {}).get("of", "")).partition("(")[0]
    if str(facts.get("source", "")).startswith("demo"):
        return OWN_DATA
    for dataset in DATASETS.values():
        if name == (dataset.benchmark or dataset.name):
            gated = "; gated: its authors ask that no example be published" if dataset.gated else ""
            return f"{dataset.licence}, as published at {dataset.home}{gated}"
    return OWN_DATA if name in registry.BUILT_IN["benchmarks"] else UNKNOWN


def _hashes(facts: Mapping[str, Any]) -> Iterator[str]:
    files = {
        str(name): about["sha256"]
        for name, about in _mapping(facts.get("files")).items()
        if isinstance(about, Mapping) and "sha256" in about
    }
    if "sha256" in facts:
        yield f"SHA-256 of the data {facts['sha256']}"
    if 0 < len(files) <= MAX_HASHES:
        yield from (f"SHA-256 of {name} {digest}" for name, digest in files.items())
    elif files:
        yield f"SHA-256 of its {len(files)} files in manifest.json"
    if facts.get("contents"):
        yield f"SHA-256 of the items asked {facts['contents']}"


def _training(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    if train := manifest.get("train"):
        counts = [f"{count(train[kind])} {kind}" for kind in ("questions", "texts", "pairs") if train.get(kind)]
        source = manifest.get("train_source")
        yield Fact("training data", "; ".join([*([source] if source else []), ", ".join(counts)]))
        removed = _mapping(train.get("left_out_by_kind"))
        kinds = ", ".join(f"{count(number)} {kind}" for kind, number in removed.items() if number)
        why = "because they are asked, or share a template with what is asked"
        yield Fact("overlap removed", f"{kinds} {why}" if kinds else "none")
        yield Fact("SHA-256 of the training data", str(train.get("sha256", UNKNOWN)))
    for name, facts in manifest.get("models", {}).items():
        if facts.get("training"):
            yield Fact(f"{name}, before this run", f"{facts.get('trained_by', '?')}: {facts['training']}")
    for made in manifest.get("applied", []):
        if made.get("training"):
            yield Fact(f"{made['method']} from {made['model']}", str(made["training"]))


def _without_numbers(records: Sequence[Record]) -> Iterator[Fact]:
    for r in without_numbers(records):
        yield Fact(f"{r.model}, {r.method} on {r.benchmark}", f"{r.status}: {r.note}")


def _versions(manifest: Mapping[str, Any]) -> Iterator[Fact]:
    for name, version in manifest.get("versions", {}).items():
        yield Fact(name, str(version))
    if git := manifest.get("git"):
        state = "" if git.get("clean") else ", with changes that are not committed"
        yield Fact("commit of evenhand", f"{git.get('commit', UNKNOWN)}{state}")
    if "answers_version" in manifest:
        yield Fact("prompts and parses", f"version {manifest['answers_version']}")


def _files(folder: Path | None) -> Iterator[Fact]:
    if folder is None:
        return
    for name, about in FILES.items():
        if (folder / name).is_file() or name in ("report.html", "summary.md"):  # which are about to be written
            yield Fact(name, about, name)
    answers = sorted((folder / "answers").glob("*.parquet"))
    if answers:
        yield Fact("answers", f"every answer, {count(len(answers))} files", "answers/")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _count(value: Any) -> str:
    return count(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
