"""Facts about methods and benchmarks that need no import of them: a list must appear at once."""

from __future__ import annotations

import ast
import inspect
import tomllib
from functools import cache
from importlib.abc import InspectLoader
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core import registry

if TYPE_CHECKING:
    import pandas as pd

FACTS = Path(__file__).with_suffix(".toml")
PROMPTS = FACTS.with_name("benchmark_prompts.toml")
TRAIN = " --train "
"""Separates an example's method from its training data."""


class MethodFacts(NamedTuple):
    """Facts about one method for a list; "" means "nothing" or, for a plugin, "not known"."""

    name: str
    about: str
    """First sentence of its description; for a broken plugin, its error."""
    needs: str
    """Abilities that the model must have, and further conditions."""
    trains: str
    """Data that it learns from: questions, texts or pairs."""
    calls: str
    """Requests to the model per question."""
    source: str
    """The paper."""
    example: str
    """Settings and training data that work on the demo, as `evenhand compare --methods` takes them."""
    vary: str = ""
    """A setting and values for a sweep, "strength=0.5,1.0", if the method has one that trades bias against cost."""

    @property
    def train(self) -> str:
        """Training data that work on the demo, such as "demo:pairs"."""
        return self.example.partition(TRAIN)[2]


def methods() -> list[MethodFacts]:
    """List all methods: built-in ones first, then plugins and those that cannot be used."""
    return [method_facts(name, about) for name, about in listing("methods").items()]


def method_facts(name: str, about: str = "") -> MethodFacts:
    """Return the facts about one method; for a plugin, those that its class declares.

    Args:
        name: Registered name, or the label of a broken plugin.
        about: First sentence of its description.
    """
    if name in registry.BUILT_IN["methods"]:
        return MethodFacts(name, about, **_built_in()[name])
    if name not in registry.methods.names():
        return MethodFacts(name, about, "", "", "", "", "")
    cls = registry.methods.get(name)
    needs = [*sorted(cls.needs), *([" or ".join(sorted(cls.needs_any))] if cls.needs_any else [])]
    return MethodFacts(name, about, " and ".join(needs), "training data" if cls.needs_data else "", "", "", name)


def prompts_per_item(benchmark: str) -> dict[str, float]:
    """Return the prompts per item of a built-in benchmark, by ability, with default settings on its demo items.

    Args:
        benchmark: Registered name.

    Returns:
        Prompts by ability; empty for a plugin, and for a benchmark that reads the weights without asking.
    """
    return dict(_prompts().get(benchmark, {}))


def listing(kind: str) -> dict[str, str]:
    """List every method or benchmark with its first sentence; broken plugins with their last line of traceback."""
    known = registry.of_kind(kind)
    own = {name: first_sentence(_docstring(known, name)) for name in registry.BUILT_IN[kind]}
    found = own | {name: about(thing) for name, thing in known.load_all(leave_out=own).items()}
    return found | {f"{n} (broken plugin)": reason.strip().splitlines()[-1] for n, reason in known.problems.items()}


def list_methods() -> pd.DataFrame:
    """List all mitigation methods: a row each, with needs, training data, calls, source and an example."""
    import pandas as pd

    return pd.DataFrame([m._asdict() for m in methods()]).drop(columns="vary").set_index("name")


def list_benchmarks() -> pd.DataFrame:
    """List all benchmarks: a row each, with its first sentence."""
    import pandas as pd

    return pd.DataFrame({"about": listing("benchmarks")}).rename_axis("name")


def about(thing: Any) -> str:
    """Return the first sentence of a class's description."""
    return first_sentence(inspect.getdoc(thing) or "")


def first_sentence(docstring: str) -> str:
    """Return the summary of a docstring, in one line."""
    return docstring.split("\n\n")[0].replace("\n", " ")


@cache
def _built_in() -> dict[str, dict[str, str]]:
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))


@cache
def _prompts() -> dict[str, dict[str, float]]:
    return tomllib.loads(PROMPTS.read_text(encoding="utf-8"))


def _docstring(known: registry.Registry, name: str) -> str:
    """Return a class's docstring from its source: importing all methods takes a second, too long for a list of them."""
    module, _, attribute = (known.place(name) or "").partition(":")
    spec = find_spec(module)
    source = spec.loader.get_source(module) if spec is not None and isinstance(spec.loader, InspectLoader) else None
    if source is None:
        return inspect.getdoc(known.get(name)) or ""
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == attribute)
    return next((ast.get_docstring(node) or "" for node in classes), "")
