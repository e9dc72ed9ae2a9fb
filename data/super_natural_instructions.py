"""Super-NaturalInstructions (Wang et al. 2022, arXiv 2204.07705): classification tasks from a folder of json files.

Takes the raw task files (allenai/natural-instructions, folder tasks) as well as those that the label-bias authors'
script prepares (schwartz-lab-NLP/label-bias, scripts/extract_classification_tasks.py: 96 positive examples, shuffled
instances). What counts as classification here is English, with 2 to 49 labels, mostly one output each. The authors'
own choice of 279 tasks is narrower, and is in `evenhand.data.classification_tasks`.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.draws import seeded_hash
from evenhand.core.hashing import bytes_hash
from evenhand.data.classification_tasks import choose, chosen, count_notes
from evenhand.data.io import locate
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.on_disk import inner, visible, without_copies
from evenhand.data.io.rows import SHOWN, Refused, decoded, from_json, words
from evenhand.errors import DataError, SettingsError

DATASET = locate.Dataset(
    name="super_natural_instructions",
    hub="",
    revision="",
    patterns=(),
    licence="Apache-2.0 (the code; each task names its own)",
    home="github.com/allenai/natural-instructions, folder tasks",
    benchmark="label_bias",
    clone=locate.Clone(
        "https://github.com/allenai/natural-instructions", "fd2da121ae684832d1c5c6c6ccd57560df06f790", "tasks"
    ),
)
MOST_LABELS = 49
MOST_OUTPUTS = 2
"""With this many outputs per instance on average, a task does not count as classification."""
LEAST_TESTED = 2


class Example(NamedTuple):
    """An input and its label's index."""

    input: str
    label: int


@dataclass(frozen=True, slots=True)
class Task:
    """One classification task."""

    name: str
    """File name without .json."""
    category: str
    definition: str
    labels: tuple[str, ...]
    """Sorted."""
    pool: tuple[Example, ...]
    """Positive examples, in file order, where there are enough to demonstrate (prepared files); else empty."""
    instances: tuple[Example, ...]


class Parts(NamedTuple):
    """What one task is asked with; no input occurs in two parts."""

    contexts: tuple[tuple[Example, ...], ...]
    """Sets of demonstrations."""
    held_out: tuple[Example, ...]
    tested: tuple[Example, ...]


class Loaded(NamedTuple):
    """Tasks by name, and their facts for a report."""

    tasks: list[Task]
    facts: dict[str, Any]


def load(source: str, wanted: tuple[str, ...] = (), needed: int = 0, *, paper: bool = False) -> Loaded:
    """Read classification tasks.

    Args:
        source: "auto" ($EVENHAND_DATA/super_natural_instructions), "demo", a folder (or one with a folder tasks/ in it)
            or a json file.
        wanted: Names of tasks, as "task190_snli_textual_entailment" or "task190"; empty takes all.
        needed: Examples that go to demonstrations and held-out items; a task must have some more.
        paper: Whether only tasks are taken that the authors' rule chooses (`evenhand.data.classification_tasks`); then
            `facts["choice"]` is its table.

    Returns:
        Usable tasks; those that are not classification tasks, or are unusable, are listed in `facts["dropped"]`.

    Raises:
        DataError: There is no data, or no usable task.
        SettingsError: A wanted task is not there.
    """
    demo = source == "demo"
    path = demo_folder("label_bias") if demo else locate.locate(DATASET, source)
    problems, tasks, digests = locate.Problems(), list[Task](), list[str]()
    files = _apart(task_files(path, wanted), problems)
    verdicts = choose(path, files, problems) if paper else []
    for file in chosen(files, verdicts) if paper else files:
        content = read_bytes(file, empty=True)
        task = _task(file, content, needed, problems)
        if task is not None:
            tasks.append(task)
            digests.append(f"{task.name} {bytes_hash(content)}")
    if not tasks:
        raise DataError(f"{path} holds no usable classification task (task*.json){problems.first}")
    facts = {
        "source": "demo: the proving ground's reviews, not Super-NaturalInstructions" if demo else str(path),
        "tasks": len(tasks),
        "sha256": bytes_hash("\n".join(digests).encode()),
        "dropped": problems.lines,
        "notes": [*_notes(tasks), *(count_notes(verdicts) if paper and not wanted else ())],
        **({"choice": [v._asdict() for v in verdicts]} if paper else {}),
    }
    return Loaded(tasks, facts)


def _apart(files: list[Path], problems: locate.Problems) -> list[Path]:
    """The files without renamed copies, which are noted."""
    kept, copies = without_copies(files)
    for file, name in copies.items():
        problems.add(file, 0, f"a copy of {name}, by its name, which counts once")
    return kept


def parts(task: Task, *, contexts: int, shots: int, held_out: int, tested: int, seed: int) -> Parts:
    """Divide a task's examples.

    Where a task has a pool (prepared files), demonstrations are their first ones and the held-out items
    their last ones, as in the authors' code; instances are tested in file order. Else all come from the instances, in
    an order by a hash of seed, task and input, which does not depend on other tasks.
    """
    needed = contexts * shots + held_out
    if task.pool:
        front, held = task.pool[: contexts * shots], task.pool[len(task.pool) - held_out :]
        shown = {e.input for e in task.pool}
        rest = tuple(e for e in task.instances if e.input not in shown)
    else:
        order = sorted(task.instances, key=lambda e: seeded_hash(seed, task.name, e.input))
        front, held, rest = tuple(order[:needed]), tuple(order[contexts * shots : needed]), tuple(order[needed:])
    sets = tuple(front[i * shots : (i + 1) * shots] for i in range(contexts))
    return Parts(sets, held, rest[:tested])


def task_files(path: Path, wanted: tuple[str, ...] = ()) -> list[Path]:
    """The files of all tasks in a folder, or of those wanted, by name.

    Raises:
        SettingsError: A wanted task is not there.
    """
    if path.is_file():
        return [path]
    folder = path / "tasks" if (path / "tasks").is_dir() else path
    files = visible(folder, "task*.json")
    if not files and (nested := inner(path)) is not None:
        return task_files(nested, wanted)
    for name in wanted:
        if not any(_is(f, name) for f in files):
            raise SettingsError(f"there is no task {name!r} in {folder}, which holds {len(files)} task*.json files")
    return [f for f in files if not wanted or any(_is(f, name) for name in wanted)]


def _is(file: Path, name: str) -> bool:
    return file.stem == name or file.stem.startswith(f"{name}_")


def _task(file: Path, content: bytes, needed: int, problems: locate.Problems) -> Task | None:
    """The task of one file, or None with the reason in `problems`."""
    try:
        raw = from_json(decoded(content))
    except UnicodeDecodeError as error:
        problems.add(file, content[: error.start].count(b"\n") + 1, f"not UTF-8: {error.reason}")
        return None
    except Refused as error:
        problems.add(file, error.line, str(error))
        return None
    reason = _wrong(raw)
    if reason:
        problems.add(file, 0, reason)
        return None
    pool = _pairs(file, raw, "Positive Examples", problems) if len(raw["Positive Examples"]) >= needed else []
    pool = pool if len(pool) >= needed else []
    instances = _pairs(file, raw, "Instances", problems)
    reason = _no_classification(raw, pool, instances, needed)
    if reason:
        problems.add(file, 0, reason)
        return None
    labels = sorted({label for _, label in pool + instances})
    at = {label: i for i, label in enumerate(labels)}
    examples = [tuple(Example(text, at[label]) for text, label in part) for part in (pool, instances)]
    return Task(file.stem, _first(raw.get("Categories")), _first(raw["Definition"]), tuple(labels), *examples)


def _no_classification(
    raw: dict[str, Any], pool: list[tuple[str, str]], instances: list[tuple[str, str]], needed: int
) -> str:
    """Return why a task cannot be used for classification, or ""."""
    outputs = [len(e["output"]) for e in raw["Instances"] if isinstance(e, dict) and isinstance(e.get("output"), list)]
    mean = sum(outputs) / len(outputs) if outputs else 1.0
    labels = len({label for _, label in pool + instances})
    least = LEAST_TESTED + (0 if pool else needed)
    if len(instances) < least:
        return f"{len(instances)} usable instances; {least} are needed"
    if not 2 <= labels <= MOST_LABELS or mean >= MOST_OUTPUTS:
        return f"not a classification task: {labels} labels, {mean:.1f} outputs on average"
    return ""


def _wrong(raw: Any) -> str:
    """Return why a whole file cannot be used, or ""."""
    if not isinstance(raw, dict):
        return f"a JSON object was expected, not {type(raw).__name__}"
    if not _first(raw.get("Definition")).strip():
        return "field 'Definition' is missing or empty"
    for name in ("Positive Examples", "Instances"):
        if not isinstance(raw.get(name), list):
            return f"field {name!r} is missing or not a list"
    for name in ("Input_language", "Output_language"):
        if _first(raw.get(name)) not in ("", "English"):
            return f"{name} is {_first(raw[name])!r}; only English tasks are taken"
    return ""


def _pairs(file: Path, raw: dict[str, Any], name: str, problems: locate.Problems) -> list[tuple[str, str]]:
    """Inputs with their (first) output; of an input that occurs more than once the first counts.

    Both lose the blanks around them, as in the prompts of the authors (schwartz-lab-NLP/label-bias,
    src/superni/utils/ni_collator.py strips inputs and the outputs of demonstrations), so "Yes " is the class "Yes";
    the list of answer choices in their prepared files (scripts/extract_classification_tasks.py) is not stripped. Case
    and full stops make classes of their own there, and so here.
    """
    out: dict[str, str] = {}
    repeated = 0
    for number, example in enumerate(raw[name]):
        try:
            text, label = (words(_one(example, field), field) for field in ("input", "output"))
        except Refused as error:
            problems.add(file, 0, f"{name}[{number}]: {error}")
            continue
        if text in out:
            repeated += 1
        else:
            out[text] = label
    if repeated:
        problems.add(file, 0, f"{name}: {repeated} inputs that occur before")
    return list(out.items())


def _one(example: Any, field: str) -> Any:
    """A field of an example, or the first of a list in it."""
    value = example.get(field) if isinstance(example, dict) else None
    return (value[0] if value else None) if field == "output" and isinstance(value, list) else value


def alike(task: Task) -> list[list[str]]:
    """Labels of a task that are equal but for case or a full stop at the end, which the prompts add anyway."""
    found: dict[str, list[str]] = {}
    for label in task.labels:
        found.setdefault(label.rstrip(string.punctuation + " ").casefold() or label, []).append(label)
    return [labels for labels in found.values() if len(labels) > 1]


def _notes(tasks: Sequence[Task]) -> list[str]:
    """A note about labels that look alike; they stay classes of their own."""
    odd = [f"{task.name}: {', '.join(map(repr, labels))}" for task in tasks for labels in alike(task)]
    more = f"; and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
    said = "labels equal but for case or a full stop, which are classes of their own as in the authors' code"
    return [f"{said} ({'; '.join(odd[:SHOWN])}{more})"] if odd else []


def _first(value: Any) -> str:
    """A text, or the first of a list of texts."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return value if isinstance(value, str) else ""
