"""Public names: what packages give, what type checkers see, and that nothing is imported before it is used."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from evenhand.core.registry import BUILT_IN, Registry, benchmarks, methods

PACKAGES = ("evenhand", "evenhand.methods", "evenhand.evaluation", "evenhand.methods.permutation")


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_same_names_from_the_same_places(package: str) -> None:
    module = importlib.import_module(package)
    block = next(node for node in ast.parse(Path(str(module.__file__)).read_text()).body if isinstance(node, ast.If))
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    places = {alias.asname: (node.module, alias.name) for node in imported for alias in node.names}
    assert sorted(places, key=str) == dir(module)
    for name, (place, inside) in places.items():
        assert place is not None
        assert getattr(module, str(name)) is getattr(importlib.import_module(place), inside)


@pytest.mark.parametrize(
    ("package", "known", "bases"),
    [
        ("evenhand.methods", methods, set()),
        ("evenhand.evaluation", benchmarks, {"QuestionBenchmark", "RowBenchmark"}),
    ],
)
def test_every_built_in_is_a_public_name(package: str, known: Registry, bases: set[str]) -> None:
    module = importlib.import_module(package)
    public = {getattr(module, name) for name in dir(module)}
    assert {known.get(name) for name in BUILT_IN[known.kind]} == {c for c in public if not inspect.isabstract(c)}
    assert {c.__name__ for c in public if inspect.isabstract(c)} == bases


def test_importing_the_packages_imports_nothing_else() -> None:
    code = """
        import sys
        import evenhand, evenhand.methods, evenhand.evaluation, evenhand.methods.permutation
        heavy = ("torch", "transformers", "pydantic", "numpy", "evenhand.interfaces", "evenhand.methods.none")
        assert not [name for name in heavy if name in sys.modules]
        from evenhand.methods import Untouched
        assert "evenhand.methods.none" in sys.modules and "evenhand.methods.unlearning.pcgu" not in sys.modules
    """
    program = "\n".join(line.strip() for line in code.strip().splitlines())
    subprocess.run([sys.executable, "-c", program], check=True)
