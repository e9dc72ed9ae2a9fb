"""IFEval (Zhou et al. 2023, arXiv 2311.07911): reading its prompts, their instructions and the checkers' arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import layouts, locate, on_disk, rows
from evenhand.data.io.checksums import official
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="ifeval",
    hub="google/IFEval",
    revision="main",
    patterns=("*.jsonl",),
    licence="Apache-2.0",
    home="github.com/google-research/google-research, folder instruction_following_eval/data",
)
FILES = ("input_data", "ifeval_input_data")
KINDS = (".jsonl", ".parquet", ".arrow", ".json")

_COUNT, _TEXT, _WORDS, _RELATION, _PATTERN, _PATTERNS = "count", "text", "words", "relation", "pattern", "patterns"
ARGUMENTS: dict[str, dict[str, str]] = {
    "change_case:capital_word_frequency": {"capital_frequency": _COUNT, "capital_relation": _RELATION},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "combination:repeat_prompt": {"prompt_to_repeat": _TEXT},
    "combination:two_responses": {},
    "detectable_content:number_placeholders": {"num_placeholders": _COUNT},
    "detectable_content:postscript": {"postscript_marker": _PATTERN},
    "detectable_format:constrained_response": {},
    "detectable_format:json_format": {},
    "detectable_format:multiple_sections": {"section_spliter": _PATTERN, "num_sections": _COUNT},
    "detectable_format:number_bullet_lists": {"num_bullets": _COUNT},
    "detectable_format:number_highlighted_sections": {"num_highlights": _COUNT},
    "detectable_format:title": {},
    "keywords:existence": {"keywords": _PATTERNS},
    "keywords:forbidden_words": {"forbidden_words": _PATTERNS},
    "keywords:frequency": {"keyword": _PATTERN, "frequency": _COUNT, "relation": _RELATION},
    "keywords:letter_frequency": {"letter": _TEXT, "let_frequency": _COUNT, "let_relation": _RELATION},
    "language:response_language": {"language": _TEXT},
    "length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": _COUNT,
        "nth_paragraph": _COUNT,
        "first_word": _TEXT,
    },
    "length_constraints:number_paragraphs": {"num_paragraphs": _COUNT},
    "length_constraints:number_sentences": {"num_sentences": _COUNT, "relation": _RELATION},
    "length_constraints:number_words": {"num_words": _COUNT, "relation": _RELATION},
    "punctuation:no_comma": {},
    "startend:end_checker": {"end_phrase": _TEXT},
    "startend:quotation": {},
}
"""The 25 instruction types and the arguments that each one's checker needs. The official checkers draw an omitted
argument at random, so all of them are required here."""

_OTHER_LANGUAGE = re.compile(r"[a-z]{2}:[a-z_]+:[a-z_]+$")
"""An instruction of M-IFEval (Dussolle et al. 2025, arXiv 2502.04688), such as "es:special_character:tildes"."""

_LISTS = ("keywords", "forbidden_words")
"""Arguments that are lists of words."""

OddRows = Literal["official", "repaired"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt with the instructions that a response is held against."""

    key: int
    text: str
    instructions: tuple[str, ...]
    """Instruction ids, "group:type"; at least one."""
    arguments: tuple[Mapping[str, Any], ...]
    """The checker's arguments for each instruction, without nulls."""


class Loaded(NamedTuple):
    """Prompts in file order, and their facts for a report."""

    prompts: list[Prompt]
    facts: dict[str, Any]


def load_prompts(source: str, odd_rows: OddRows = "official") -> Loaded:
    """Read IFEval's prompts.

    Args:
        source: "auto", "hub", "hub:NAME", "demo" (the proving ground's, of the package) or a path.
        odd_rows: "repaired" asks of key 1174 what its text asks ("at least", where the arguments say "less than").

    Returns:
        Valid prompts. Lines that cannot be used are listed in `facts["dropped"]` by file, line and field.

    Raises:
        DataError: There is no data, or not one usable row.
    """
    path = demo_folder("ifeval") if source == "demo" else locate.locate(DATASET, source)
    problems = locate.Problems()
    found: dict[int, Prompt] = {}
    digests = {}
    read = _files(path)
    for file in read:
        content = read_bytes(file, empty=True)
        digests[file.name] = bytes_hash(content)
        for number, raw in layouts.read_table(file, content, (), problems):
            row = in_form(raw)
            reason = wrong(row)
            if not reason and row["key"] in found:
                reason = f"key {row['key']} occurs twice"
            if reason:
                problems.add(file, number, reason)
            else:
                found[row["key"]] = prompt_of(row, odd_rows)
    if not found:
        raise DataError(f"{path} holds no usable IFEval row{problems.first}")
    prompts = list(found.values())
    if source == "demo":
        return Loaded(prompts, {"source": "demo: the proving ground's prompts, not IFEval", "dropped": []})
    # the hub's copy differs: it spells out unused arguments as null
    as_published = official(DATASET.name).files["input_data.jsonl"] in digests.values()
    facts = {"source": str(path), "rows": len(prompts), "files": digests, "official": as_published}
    notes = on_disk.unread(
        layouts.other_tables(path, read, KINDS), path, f"{on_disk.few(f.name for f in read)} is read"
    )
    return Loaded(prompts, {**facts, "dropped": problems.lines, "notes": notes})


def _files(path: Path) -> list[Path]:
    known = "jsonl, parquet or arrow files with key, prompt, instruction_id_list, kwargs"
    published = layouts.published_tables(path, FILES, KINDS) if path.is_dir() else []
    return published or layouts.demanded_tables(path, "IFEval", known, KINDS)


def in_form(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the published file has it, where another program wrote it in a form of its own.

    Lists and objects may be written as text, whole numbers as 7.0, a key as "7", and missing arguments as NaN.
    """
    found = {**row, **{name: rows.unwritten(row[name]) for name in ("instruction_id_list", "kwargs") if name in row}}
    if (key := rows.whole(row.get("key"))) is not None:
        found["key"] = key
    if isinstance(found.get("kwargs"), list):
        found["kwargs"] = [_arguments_in_form(arguments) for arguments in found["kwargs"]]
    return found


def _arguments_in_form(arguments: Any) -> Any:
    arguments = rows.unwritten(arguments)
    if not isinstance(arguments, Mapping):
        return arguments
    values = {name: rows.unwritten(value) if name in _LISTS else _number(value) for name, value in arguments.items()}
    return {name: value for name, value in values.items() if value == value}  # NaN stands for a missing argument


def _number(value: Any) -> Any:
    """A whole number as such; any other value as it is."""
    found = rows.whole(value) if isinstance(value, Real) else None
    return value if found is None else found


def wrong(row: Mapping[str, Any]) -> str:
    """Return why a row cannot be used, or ""; names the field."""
    for name in ("key", "prompt", "instruction_id_list", "kwargs"):
        if name not in row:
            return f"field {name!r} is missing"
    if not isinstance(row["key"], int) or isinstance(row["key"], bool):
        return f"key {row['key']!r} is not a whole number"
    if not isinstance(row["prompt"], str) or not row["prompt"].strip():
        return "prompt is not a text"
    ids, given = row["instruction_id_list"], row["kwargs"]
    if not isinstance(ids, list) or not ids:
        return "instruction_id_list is not a list of instructions"
    if not isinstance(given, list):
        return f"kwargs is {'null' if given is None else type(given).__name__}, not a list"
    if len(ids) != len(given):
        return f"kwargs has {len(given)} entries for {len(ids)} instructions"
    for at, (name, arguments) in enumerate(zip(ids, given, strict=True)):
        reason = _wrong_arguments(name, arguments)
        if reason:
            return f"kwargs[{at}] ({name}): {reason}" if isinstance(name, str) and name in ARGUMENTS else reason
    return ""


def _wrong_arguments(name: Any, arguments: Any) -> str:
    if isinstance(name, str) and _OTHER_LANGUAGE.match(name):
        return (
            f"instruction_id_list holds {name!r} of M-IFEval, whose checkers for other languages evenhand does not have"
        )
    if not isinstance(name, str) or name not in ARGUMENTS:
        return f"instruction_id_list holds {name!r}, which is none of IFEval's types"
    wanted = ARGUMENTS[name]
    if arguments is None:
        return f"null, but it needs {', '.join(wanted)}" if wanted else ""  # nothing is needed, so null is harmless
    if not isinstance(arguments, Mapping):
        return f"{type(arguments).__name__}, not an object"
    given = {k: v for k, v in arguments.items() if v is not None}
    for argument, kind in wanted.items():
        if argument not in given:
            return f"{argument} is null or missing"
        reason = _wrong_value(given[argument], kind)
        if reason:
            return f"{argument} {given[argument]!r} {reason}"
    unknown = sorted(set(given) - set(wanted))
    return f"unknown argument {unknown[0]!r}" if unknown else ""


def _wrong_value(value: Any, kind: str) -> str:
    if kind == _COUNT:
        return "" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "is not a count"
    if kind == _RELATION:
        return "" if value in ("less than", "at least") else "is neither 'less than' nor 'at least'"
    if kind == _PATTERNS:
        if not isinstance(value, list) or not value:
            return "is not a list of words"
        return next((reason for v in value if (reason := _wrong_value(v, _PATTERN))), "")
    if not isinstance(value, str) or not value.strip():
        return "is not a text"
    # the official checkers use this value as a regular expression
    if kind == _PATTERN and (why := rows.unusable_pattern(value)):
        return f"is not a regular expression, as the checker requires: {why}"
    return ""


def prompt_of(row: Mapping[str, Any], odd_rows: OddRows = "official") -> Prompt:
    """A valid row (see `wrong`) as a prompt; `odd_rows` as for `load_prompts`."""
    given = [{k: v for k, v in (a or {}).items() if v is not None} for a in row["kwargs"]]
    prompt = Prompt(row["key"], row["prompt"], tuple(row["instruction_id_list"]), tuple(given))
    return _repaired(prompt) if odd_rows == "repaired" else prompt


def _repaired(prompt: Prompt) -> Prompt:
    if prompt.key != 1174 or "at least 6 times" not in prompt.text:
        return prompt
    arguments = tuple({**a, "let_relation": "at least"} if "let_relation" in a else a for a in prompt.arguments)
    return Prompt(prompt.key, prompt.text, prompt.instructions, arguments)
