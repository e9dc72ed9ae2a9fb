"""What methods and benchmarks there are, as facts that need no import of theirs: a list must appear at once."""

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
TRAIN = " --train "
"""Parts an example's method from its training data."""


class MethodFacts(NamedTuple):
    """One method as a list of methods shows it; "" is "nothing" or, for a plugin, "not known"."""

    name: str
    about: str
    """First sentence of its description; of a broken plugin, its error."""
    needs: str
    """Abilities that the model must have, and further conditions."""
    trains: str
    """What it learns from: questions, texts or pairs."""
    calls: str
    """Requests to the model per question."""
    source: str
    """The paper."""
    example: str
    """Settings and training data that work on the demo, as `evenhand compare --methods` takes them."""
    vary: str = ""
    """A setting and values for a sweep, "strength=0.5,1.0", where the method has one that trades bias against cost."""

    @property
    def train(self) -> str:
        """Training data that work on the demo, such as "demo:pairs"."""
        return self.example.partition(TRAIN)[2]


def methods() -> list[MethodFacts]:
    """All methods, built-in ones first, then plugins and those that cannot be used."""
    return [method_facts(name, about) for name, about in listing("methods").items()]


def method_facts(name: str, about: str = "") -> MethodFacts:
    """Facts of one method; of a plugin what its class says.

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


def listing(kind: str) -> dict[str, str]:
    """Every method or benchmark with its first sentence; broken plugins with their last line of traceback."""
    known = registry.of_kind(kind)
    own = {name: first_sentence(_docstring(known, name)) for name in registry.BUILT_IN[kind]}
    found = own | {name: about(thing) for name, thing in known.load_all(leave_out=own).items()}
    return found | {f"{n} (broken plugin)": reason.strip().splitlines()[-1] for n, reason in known.problems.items()}


def list_methods() -> pd.DataFrame:
    """All mitigation methods: a row each, with what it needs, what it trains on, its calls, source and an example."""
    import pandas as pd

    return pd.DataFrame([m._asdict() for m in methods()]).drop(columns="vary").set_index("name")


def list_benchmarks() -> pd.DataFrame:
    """All benchmarks: a row each, with its first sentence."""
    import pandas as pd

    return pd.DataFrame({"about": listing("benchmarks")}).rename_axis("name")


def about(thing: Any) -> str:
    """First sentence of a class's description."""
    return first_sentence(inspect.getdoc(thing) or "")


def first_sentence(docstring: str) -> str:
    """The summary of a docstring, in one line."""
    return docstring.split("\n\n")[0].replace("\n", " ")


@cache
def _built_in() -> dict[str, dict[str, str]]:
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))


def _docstring(known: registry.Registry, name: str) -> str:
    """A class's docstring from its source: to import all methods takes a second, and a list of them must not."""
    module, _, attribute = (known.place(name) or "").partition(":")
    spec = find_spec(module)
    source = spec.loader.get_source(module) if spec is not None and isinstance(spec.loader, InspectLoader) else None
    if source is None:
        return inspect.getdoc(known.get(name)) or ""
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == attribute)
    return next((ast.get_docstring(node) or "" for node in classes), "")
