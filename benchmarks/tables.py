"""Print results as a table and, on request, write them to docs/performance.md, with the machine they are from."""

from __future__ import annotations

import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PACKAGES = ("torch", "transformers", "lm_eval", "numpy", "scipy")


def put(name: str, rows: list[dict[str, object]], *, write: bool) -> None:
    """Print a table and, on request, put it between its marks in docs/performance.md."""
    table = "\n".join([markdown(rows), "", machine()])
    print(table, flush=True)
    if write:
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        PAGE.write_text(pattern.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", PAGE.read_text()))


def markdown(rows: list[dict[str, object]]) -> str:
    """Format rows with the same keys as a Markdown table; numbers are right-aligned."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---|" + "--:|" * (len(rows[0]) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows)])


def machine() -> str:
    """Describe processor, threads and versions."""
    cpu = next((line.split(": ")[1] for line in _cpu_lines() if line.startswith("model name")), platform.processor())
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{cpu}, {torch.get_num_threads()} threads; {versions}."


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
