"""Options, printing and error exits that the commands of `evenhand` share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON on standard output.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file with methods or benchmarks; repeatable.")
]


def load_plugins(files: list[Path] | list[str]) -> None:
    """Run plugin files, and register their methods and benchmarks."""
    from evenhand.core import registry

    for file in files:
        registry.load_plugin(file)


def facts(content: Any, as_json: bool) -> None:
    """Print facts as JSON, or as indented `name: value` lines."""
    from evenhand.core.sinks import json_text

    if as_json:
        write(json_text(content, 2))
        return
    write("\n".join(_lines(content, "")))


def _lines(content: Any, indent: str) -> list[str]:
    from evenhand.core.sinks import one_line

    if isinstance(content, dict):
        out = []
        for name, value in content.items():
            nested = isinstance(value, dict | list) and value
            out += (
                [f"{indent}{one_line(name)}:", *_lines(value, indent + "  ")]
                if nested
                else [f"{indent}{one_line(name)}: {_word(value)}"]
            )
        return out
    return (
        [line for value in content for line in _lines(value, indent)]
        if _nested(content)
        else [f"{indent}- {_word(value)}" for value in content]
    )


def _nested(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(v, dict) for v in content)


def _word(value: Any) -> str:
    return "none" if value in ([], {}, None) else str(value)


def write_records(records: Any) -> None:
    """Print records as one JSON list; nan and infinity, which JSON lacks, become null."""
    from dataclasses import asdict

    from evenhand.core.sinks import json_text
    from evenhand.core.text_output import for_json

    rows = [{k: for_json(v) for k, v in asdict(r).items()} for r in records]
    write(json_text(rows, 1))


def show_rich(report: Any) -> None:
    """Print what rich can render, with control characters of its texts spelled out."""
    from rich.console import Console

    from evenhand.core.rich_output import Harmless

    Console().print(Harmless(report))


def write(text: str) -> None:
    """Print plain text, with control characters spelled out."""
    from evenhand.core.text_output import visible

    sys.stdout.write(visible(text) + "\n")


def fail(message: str, code: int) -> NoReturn:
    """Print an error on standard error, and exit."""
    from rich.console import Console
    from rich.text import Text

    from evenhand.core.text_output import visible

    Console(stderr=True, soft_wrap=True).print(Text("error: ", style="bold red") + Text(visible(message)))
    sys.exit(code)
