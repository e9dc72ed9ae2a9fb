"""Builds the documentation site: pages and notebooks as they are, and a card or reference page for what code declares.

    python docs/site/build_site.py [FOLDER]      FOLDER is build/site where none is named

Everything is laid out in a folder as it lies in the repository, so that relative links hold on the site as they do in
the repository; generated pages are written next to it. Warnings are errors.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.cmd.build import main as sphinx

from evenhand.cli import reference_cards, reference_commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
FOLDERS = ("docs", "notebooks", "findings")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
HOME = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/index.html">\n'
"""The first page, which leads to the index where it lies in the repository."""
MODULES = {
    "evenhand": "What ``import evenhand`` gives",
    "evenhand.interfaces": "The nouns that methods, benchmarks and models are made of",
    "evenhand.testing": "What a plugin's tests use",
    "evenhand.metrics": "Numbers of predictions that you already have",
    "evenhand.errors": "What evenhand raises on purpose",
}
"""Modules with a reference page, each with its title."""
GATHERED = ("evenhand", "evenhand.testing")
"""Modules of these whose names are declared elsewhere."""


def sources() -> Iterator[Path]:
    """Every file of the repository that is a page, or that a page links."""
    pages = [ROOT / name for name in PAGES]
    for folder in FOLDERS:
        pages += [file for file in sorted((ROOT / folder).rglob("*")) if file.is_file() and _is_shown(file)]
    seen = set(pages)
    yield from pages
    for page in pages:
        for target in linked(page) if page.suffix == ".md" else ():
            if target.is_file() and target not in seen:
                seen.add(target)
                yield target


def _is_shown(file: Path) -> bool:
    parts = file.relative_to(ROOT).parts
    return parts[:2] != ("docs", "site") and ".ipynb_checkpoints" not in parts and "__pycache__" not in parts


def linked(page: Path) -> Iterator[Path]:
    """Where the relative links of a page lead."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        yield (page.parent / target).resolve()


def lay_out(folder: Path) -> None:
    """Write all pages into a folder; what has not changed keeps its time, so that Sphinx does not read it again."""
    wanted = {file.relative_to(ROOT): file.read_bytes() for file in sources()}
    wanted |= {Path(name): text.encode() for name, text in generated().items()}
    for file in [found for found in folder.rglob("*") if found.is_file()]:
        if file.relative_to(folder) not in wanted:
            file.unlink()
    for name, content in wanted.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)


def generated() -> dict[str, str]:
    """The pages that code writes, by their place."""
    pages = {f"cards/{name}": text for name, text in reference_cards.pages(ROOT / "notebooks").items()}
    pages["reference/commands.md"] = reference_commands.page()
    return pages | {f"reference/{module}.rst": _module_page(module, title) for module, title in MODULES.items()}


def _module_page(module: str, about: str) -> str:
    """A page with the docstrings of a module's public names; those that another page has are linked."""
    title = f"``{module}``"
    head = f"{title}\n{'=' * len(title)}\n\n{about}.\n\n.. automodule:: {module}\n"
    if module not in GATHERED:
        return f"{head}   :members:\n"
    lines, elsewhere = [head], []
    found = import_module(module)
    for name in sorted(set(found.__all__) - {"__version__"}, key=str.casefold):
        thing = getattr(found, name)
        if inspect.ismodule(thing) or thing.__module__ in MODULES:
            elsewhere.append(name)
        else:
            members = "\n   :members:" if inspect.isclass(thing) else ""
            lines.append(f".. auto{_kind(thing)}:: {module}.{name}{members}\n")
    if elsewhere:
        links = ", ".join(_link(getattr(found, name), name) for name in elsewhere)
        lines.insert(1, f"It also has {links}.\n")
    return "\n".join(lines)


def _kind(thing: Any) -> str:
    return "class" if inspect.isclass(thing) else "function"


def _link(thing: Any, name: str) -> str:
    """A link to what another page describes; of a module without a page, its name."""
    if not inspect.ismodule(thing):
        return f":py:{_kind(thing).removesuffix('tion')}:`~{thing.__module__}.{name}`"
    return f":doc:`{name} <{thing.__name__}>`" if thing.__name__ in MODULES else f"``{name}``"


def build(folder: Path) -> int:
    """Build the site and return Sphinx's exit status, 1 after a warning; two folders for its work lie next to it."""
    work = folder.with_name(f"{folder.name}-source")
    lay_out(work)
    options = ["-W", "--keep-going", "-q", "-d", str(folder.with_name(f"{folder.name}-doctrees"))]
    status = sphinx([*options, "-c", str(Path(__file__).parent), str(work), str(folder)])
    if not status:
        (folder / "index.html").write_text(HOME, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build" / "site"))
