"""Imports go one way, wherever they stand: at the top of a module, in a function or below `if TYPE_CHECKING`."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from itertools import takewhile
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = ROOT / "src" / "evenhand"
LAYERS = (
    ("__main__",),
    ("cli",),
    ("testing",),
    ("integrations", "metrics", "proving_ground"),
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
    ("renaming",),
    ("errors",),
)
"""Packages from top to bottom; those in one line do not import each other."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TOP_LEVEL = {"__init__", "__main__", "errors", "interfaces"}
"""The only modules outside of a package."""
INDEPENDENT = ("evenhand.methods.", "evenhand.evaluation.")
"""Packages whose parts, families of methods and benchmarks, do not import each other."""
SHARED = tuple(f"evenhand.evaluation.{name}" for name in ("base", "loading", "metrics", "_bias_qa", "_worded_qa"))
OF_OTHERS = {"fuzz", "servers", "zoo"}
"""Folders of tests that belong to no package of ours: against other software that runs beside it, or hostile input."""
NO_BENCHMARK = (*SHARED, "evenhand.evaluation.hf_evaluate")
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


def private_names(name: str, file: Path) -> Iterator[str]:
    """The private names of other modules that a module uses: `from x import _y`, and `x._y` of an imported module."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    tree, known = ast.parse(file.read_text(encoding="utf-8")), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                known[alias.asname or alias.name] = f"{source}.{alias.name}"
        elif isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
    for member in known.values():
        if member.rpartition(".")[0] in modules() and member not in modules():
            yield member
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (module := known.get(ast.unparse(node.value))) in modules():
            yield f"{module}.{node.attr}"


def test_private_names_are_used_in_their_own_package_only() -> None:
    wrong = [
        f"{source} -> {member}"
        for source, file in modules().items()
        for member in private_names(source, file)
        if member.rpartition(".")[2].startswith("_") and not member.endswith("__")
        if not f"{source}.".startswith(f"{owner(member)}.")
    ]
    assert not wrong


def test_private_names_are_seen_however_they_are_used(tmp_path: Path) -> None:
    file = tmp_path / "uses.py"
    file.write_text(
        "import evenhand.models.loading\n"
        "from evenhand.models import loading\n"
        "def use():\n"
        "    from evenhand.models.loading import _one as one\n"
        "    loading._two(evenhand.models.loading._three)\n"
    )
    found = {member.rpartition(".")[2] for member in private_names("evenhand.uses", file)}
    assert {"_one", "_two", "_three"} <= found


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


def test_tests_lie_in_the_folders_of_the_packages_that_they_test() -> None:
    folders = {file.parent.relative_to(TESTS).as_posix() for file in TESTS.rglob("test_*.py")} - {".", *OF_OTHERS}
    packages = {module.removeprefix("evenhand.").replace(".", "/") for module in modules()}
    assert folders <= packages
    found = Counter(file.name for file in TESTS.rglob("test_*.py"))
    assert not {name: count for name, count in found.items() if count > 2}


# ---------------------------------------------------------------------------------------------- docs/design.md


DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def rows(header: str) -> list[str]:
    """The first cells of the table below a header."""
    lines = DESIGN.partition(header)[2].splitlines()[2:]
    return [
        line[2:].replace("\\|", "/").partition(" | ")[0] for line in takewhile(lambda line: line.startswith("|"), lines)
    ]


def test_the_design_has_the_layers_in_their_order() -> None:
    table = rows("| package | what it is |")
    assert [tuple(re.findall(r"`(\w+)`", cell)) for cell in table] == list(LAYERS)


def test_the_design_has_every_folder_of_methods_evaluation_and_data() -> None:
    named = set(re.findall(r"`([\w/]+)/`", DESIGN))
    packages = {m for m, file in modules().items() if file.name == "__init__.py" and m.count(".") >= 2}
    missing = {m for m in packages if not {m.partition(".")[2].replace(".", "/"), f"{m.rpartition('.')[2]}"} & named}
    assert not missing


def test_the_design_has_every_group_of_entry_points() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert rows("| entry-point group | an entry is | asked for by |") == [f"`{group}`" for group in declared]


def test_modules_and_files_that_the_design_names_are_there() -> None:
    dotted = set(re.findall(r"`(evenhand\.[a-z_.]+)`", DESIGN))
    groups = {cell.strip("`") for cell in rows("| entry-point group | an entry is | asked for by |")}
    functions = {"evenhand.compare"}
    assert not dotted - modules().keys() - groups - functions
    paths = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|yaml|md))`", DESIGN)
    places = (ROOT, PACKAGE, ROOT / "methods")
    paths = [path for path in paths if not re.search(r"[A-Z]{2}", path)]  # NAME and the like stand for any
    assert paths and not [path for path in paths if not any((place / path).is_file() for place in places)]
