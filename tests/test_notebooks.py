"""The notebooks show what they promise, name no folder of the machine that ran them, and some run with every change."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
RUN = ("01_quickstart", "02_compare_and_decide", "04_write_a_method", "05_write_a_benchmark")
"""Those that every run of the tests executes; `make notebooks` executes all."""
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
