"""The pages of the documentation, and what can be checked in them: links, headings, and lines for a shell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.M | re.S)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}[^\n]*\n|\n(?= {4}))+")
SHELL = ("", "bash", "sh", "console", "shell")
"""Languages of code blocks that are read as a shell's lines."""


def pages() -> list[Path]:
    """Everything that a reader of the repository or of the site opens."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return [*top, *sorted((ROOT / "docs").glob("*.md")), ROOT / "findings" / "README.md", *notebooks()]


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


@cache
def text_of(page: Path) -> str:
    """The Markdown of a page; of a notebook, that of its text cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown") + "\n"


def links(text: str) -> Iterator[str]:
    """Targets of the links and pictures outside code that lead to no other host."""
    prose = re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"\w+:", target):
            yield target


def anchors(text: str) -> set[str]:
    """What a link to a heading can name, as GitHub and the site make it of the heading."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", text), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        found |= {f"{slug}-{found[slug]}": 0} if found[slug] else {}
    return set(found)


def shell_lines(text: str) -> Iterator[str]:
    """The lines for a shell in code blocks and in backticks: without prompts, and with continued lines as one."""
    blocks = [code for _, language, code in FENCE.findall(text) if language.strip() in SHELL]
    outside = FENCE.sub("", text)
    blocks += [re.sub(r"^ {4}", "", block, flags=re.M) for block in INDENTED.findall(outside)]
    for block in blocks:
        yield from (line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
    yield from (" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", outside))


def commands(text: str, program: str) -> Iterator[list[str]]:
    """What is given to a program, wherever a line calls it: words, without comments, pipes and what follows."""
    for line in shell_lines(text):
        if re.match(rf"{program}\s", line):
            words = shlex.split(line, comments=True)
            ends = [n for n, word in enumerate(words) if word in ("|", ">", "&&", ";", "&", "2>&1")]
            yield words[1 : min(ends, default=len(words))]
