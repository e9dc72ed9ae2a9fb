"""Settings of the documentation site; `make site` builds it from what `build_site.py` lays out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from evenhand import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "evenhand"
author = "the evenhand authors"
release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "docs/index"
exclude_patterns = ["**.ipynb_checkpoints"]

# Pages and notebooks
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
nb_execution_mode = "off"  # notebooks are shown with the outputs that they have; `make notebooks` executes them
nb_merge_streams = True
highlight_language = "none"  # a block without a language is a command or its output

# Reference from docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 100

site_settings = Path(__file__).read_text(encoding="utf-8")

# Looks
html_theme = "furo"
html_title = f"evenhand {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
pygments_style = "friendly"
pygments_dark_style = "monokai"

NAVIGATION = "docs/index"
GENERATED = {"Cards": ("cards/methods", "cards/benchmarks"), "Reference from the code": ("reference/*",)}
"""Parts that are written anew for every build, which the committed index cannot link."""
_HEADING = re.compile(r"^## (.+)$", re.M)
_LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)#\s]+\.(?:md|ipynb))\)")
"""A link to a whole page: one to a heading has no place in the navigation."""


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn the links of the index into the navigation: a part per heading, an entry per link, each page once."""
    if docname != NAVIGATION:
        return
    seen: set[str] = set()
    parts = list(_HEADING.finditer(source[0]))
    ends = [part.start() for part in parts[1:]] + [len(source[0])]
    trees = []
    for part, end in zip(parts, ends, strict=True):
        links = {page: text for text, page in reversed(_LINK.findall(source[0][part.end() : end])) if page not in seen}
        seen.update(links)
        entries = [f"{text[0].upper()}{text[1:]} </{_document(page)}>" for page, text in reversed(links.items())]
        trees.append(_tree(part[1], entries))
    trees += [_tree(caption, [f"/{page}" for page in pages]) for caption, pages in GENERATED.items()]
    source[0] += "\n\n" + "\n\n".join(trees) + "\n"


def _document(page: str) -> str:
    """The name of a document, from a link in docs/."""
    path = Path("docs", page).with_suffix("")
    return Path(*(part for n, part in enumerate(path.parts) if not _is_left(path.parts, n))).as_posix()


def _is_left(parts: tuple[str, ...], n: int) -> bool:
    """Whether a part of a path is taken back by a following "..", or is one."""
    return parts[n] == ".." or parts[n + 1 : n + 2] == ("..",)


def _tree(caption: str, documents: list[str]) -> str:
    options = ":hidden:\n:glob:\n" if any("*" in document for document in documents) else ":hidden:\n"
    return f"```{{toctree}}\n{options}:caption: {caption}\n\n" + "\n".join(documents) + "\n```"


def as_rst(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Turn what docstrings have of Markdown, code in single backticks, into what Sphinx reads."""
    text = re.sub(r"^(Examples?):$", r"\1::\n", "\n".join(lines), flags=re.M)
    text = re.sub(r"^(\S.*(?<!::))\n\n(?= {4}\S)", r"\1\n\n::\n\n", text, flags=re.M)  # an indented block is code
    parts = re.split(r"(``[^`]+``|(?<!:)`[^`]+`(?!_))", text)
    for n, part in enumerate(parts):
        if n % 2 == 0:
            parts[n] = re.sub(r"(?<![\\*])\*(?!\*)", r"\\*", part)
            continue
        joined = parts[n + 1][:1].isalnum()  # the plural of a name: `Item`s
        parts[n] = f"``{' '.join(part.strip('`').split())}``" + ("\\ " if joined else "")
    lines[:] = "".join(parts).split("\n")


def setup(app: Sphinx) -> None:
    """Hook up the navigation and the docstrings; a change of this file reads all pages anew."""
    app.add_config_value("site_settings", "", "env", str)
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon reads the sections
