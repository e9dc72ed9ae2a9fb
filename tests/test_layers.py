"""Imports go one way, wherever they stand: at the top of a module, in a function or below `if TYPE_CHECKING`."""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "evenhand"
LAYERS = (
    ("cli",),
    ("testing",),
    ("integrations", "proving_ground"),
    ("experiment",),
    ("report",),
    ("methods", "evaluation"),
    ("training",),
    ("models",),
    ("inference",),
    ("data",),
    ("statistics",),
    ("prompting",),
    ("core",),
    ("interfaces",),
    ("errors",),
)
"""Packages from top to bottom; those in one line do not import each other."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TOP_LEVEL = {"__init__", "errors", "interfaces", "testing"}
"""The only modules outside of a package."""
INDEPENDENT = ("evenhand.methods.", "evenhand.evaluation.")
"""Packages whose parts, families of methods and benchmarks, do not import each other."""
NO_BENCHMARK = ("evenhand.evaluation.metrics", "evenhand.evaluation.hf_evaluate")
"""What benchmarks share, and what is made of them."""


@cache
def modules() -> dict[str, Path]:
    """Every module by name; a package by its `__init__`. Three packages are reached through links."""
    found = {}
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for file in (Path(folder, name) for name in files if name.endswith(".py")):
            parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def graph() -> dict[str, set[str]]:
    """Each module with the modules of evenhand that it imports."""
    return {name: set(imported(name, file)) - {name} for name, file in modules().items()}


def imported(name: str, file: Path) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            members = [f"{source}.{alias.name}" for alias in node.names]
            wanted = [member if member in modules() else source for member in members]
        else:
            continue
        yield from (target for target in wanted if target in modules())


def edges() -> list[tuple[str, str]]:
    return sorted((source, target) for source, targets in graph().items() for target in targets)


def layer(module: str) -> str:
    """The package that a module is in; "" of evenhand itself, which gives names of all layers."""
    return module.removeprefix("evenhand").removeprefix(".").partition(".")[0]


def part(module: str) -> str:
    """The family or benchmark that a module belongs to, such as methods.unlearning; "" of any other module."""
    independent = module.startswith(INDEPENDENT) and not module.startswith(NO_BENCHMARK)
    return ".".join(module.split(".")[1:3]) if independent else ""


def owner(module: str) -> str:
    """The package that a private module is part of, such as evenhand.methods.unlearning; evenhand of a public one."""
    parts = module.split(".")
    private = [n for n, name in enumerate(parts) if name.startswith("_") and name != "__main__"]
    return ".".join(parts[: private[-1]]) if private else "evenhand"


def test_the_graph_is_that_of_all_modules() -> None:
    known = graph()
    assert {"evenhand.models", "evenhand.methods.none", "evenhand.evaluation.bbq", "evenhand.data.bbq"} <= known.keys()
    assert "evenhand.models.local" in known["evenhand.models.loading"], "an import in a function"
    assert "evenhand.experiment.comparison" in known["evenhand"], "an import below TYPE_CHECKING"
    assert "evenhand.core.registry" in known["evenhand.models.loading"], "a module that is imported from its package"


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_nothing_is_imported_from_a_layer_above_or_beside() -> None:
    assert {layer(module) for module in modules()} == {"", *RANK}
    wrong = [
        f"{source} -> {target}"
        for source, target in edges()
        if layer(source) and layer(source) != layer(target)
        if not layer(target) or RANK[layer(target)] <= RANK[layer(source)]
    ]
    assert not wrong


def test_private_modules_are_imported_in_their_own_package_only() -> None:
    wrong = [f"{source} -> {target}" for source, target in edges() if not f"{source}.".startswith(f"{owner(target)}.")]
    assert not wrong


def test_families_of_methods_and_benchmarks_do_not_import_each_other() -> None:
    wrong = [
        f"{source} -> {target}"
        for source, target in edges()
        if part(source) and part(target) and part(source) != part(target)
    ]
    assert not wrong


def test_every_module_is_in_a_package_but_the_public_ones() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} == TOP_LEVEL


def test_a_name_is_given_to_two_modules_at_most() -> None:
    found = defaultdict(list)
    for module in sorted(modules()):
        found[module.rpartition(".")[2]].append(module)
    assert not {name: places for name, places in found.items() if len(places) > 2}
