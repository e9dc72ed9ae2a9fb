"""The notebooks show what they promise, name no folder of the machine that ran them, and some run with every change."""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import altair
import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient

import evenhand

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
RUN = ("01_quickstart", "04_write_a_method")
"""Those that every run of the tests executes in a kernel, as they stand; `make notebooks` executes all."""
CALLED = ("02_compare_and_decide", "05_write_a_benchmark")
"""Those whose cells every run executes here, with fewer items in each comparison."""
PLACE = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|Users|mnt|opt|usr|var)/|[A-Z]:\\\\|ipykernel_|site-packages")
"""A path of a machine."""
NO_BAR = {"PYTHONWARNINGS": "ignore:IProgress not found"}
"""tqdm warns of a missing widget with the path of its own file."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in NO_BAR.items():
        monkeypatch.setenv(variable, value)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = outputs_of(notebook)
    assert "text/html" in {kind for o in outputs for kind in o.get("data", {})}
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [found for o in outputs for found in PLACE.findall(text_of(o))]


@pytest.mark.filterwarnings("ignore")  # a notebook shows them
@pytest.mark.parametrize("name", CALLED)
def test_every_cell_of_a_notebook_works_on_few_items(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell is executed and what it ends with is displayed, as in a kernel that has all imports done already."""
    compared, compare = list[Any](), evenhand.compare

    def few(*given: Any, **named: Any) -> Any:
        compared.append(compare(*given, **{**named, "limit": 120, "replicates": 200}))
        return compared[-1]

    monkeypatch.setattr(evenhand, "compare", few)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    with altair.renderers.enable(altair.renderers.active):  # the notebook's choice ends with it
        shown = list(displayed([cell.source for cell in cells if cell.cell_type == "code"], monkeypatch))
    assert compared and "text/html" in {kind for data in shown for kind in data}
    assert not [found for data in shown for found in PLACE.findall(text_of({"data": data}))]


def displayed(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What cells that share their names display: the value of the expression at the end of each, in all its forms."""
    module = ModuleType("notebook_cells")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # classes are looked up by their module's name
    for source in sources:
        body = ast.parse(source).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "<cell>", "exec"), module.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), module.__dict__)
            yield DisplayFormatter().format(value)[0] if value is not None else {}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_kept_outputs_are_whole_and_name_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    outputs = outputs_of(notebook)
    assert outputs, "run it with `make notebooks`: its outputs are kept"
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [found for o in outputs for found in PLACE.findall(text_of(o))]
    assert path.stat().st_size < 1_000_000


def test_every_family_of_methods_has_a_notebook() -> None:
    families = {p.name for p in (FOLDER.parent / "methods").iterdir() if (p / "__init__.py").is_file()}
    shown = {p.stem.rpartition("_")[2] for p in NOTEBOOKS if "_methods_" in p.stem}
    assert families == shown and {p.stem[:2] for p in NOTEBOOKS} == {f"{n:02}" for n in range(1, 9)}


def test_a_path_of_a_machine_is_told_from_an_address() -> None:
    assert PLACE.search("File /tmp/a.py") and PLACE.search('"/home/me/x"') and PLACE.search("C:\\\\Users")
    assert not PLACE.search("http://127.0.0.1:8000/v1/home/x") and not PLACE.search("docs/tmp/x")


def outputs_of(notebook: Any) -> list[Any]:
    cells = (cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    return list(chain.from_iterable(cells))


def text_of(output: Any) -> str:
    """What a reader sees; pictures and scripts are not text."""
    data = output.get("data", {})
    shown = [data[kind] for kind in ("text/plain", "text/html", "text/markdown") if kind in data]
    return "\n".join([output.get("text", ""), *map(str, shown)])
