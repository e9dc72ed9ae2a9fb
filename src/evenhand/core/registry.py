"""Classes by name: built-in ones, installed plugins, notebook objects, plugin files; imported only when asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Container, Iterable, Sequence
from importlib.metadata import EntryPoint, EntryPoints, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core import repeats, specs
from evenhand.core.word_lists import listed
from evenhand.errors import EvenhandError, SettingsError, UnknownNameError
from evenhand.interfaces import Benchmark, Method

BUILT_IN: dict[str, tuple[str, ...]] = {
    "methods": listed(
        """
        none, self_debias, instruction, self_debias_decoding, moral_self_correction, intent_self_correction,
        self_help, permutation, permutation_distillation, pride, prior_matching, contextual_calibration,
        domain_calibration, batch_calibration, looc, fair_distillation, counterfactual_distillation, deep_to_shallow,
        task_vector, pcgu, preference, pairwise, steering, fairsteer, cross_model_adjudication
        """
    ),
    "benchmarks": listed(
        """
        bbq, holistic_bias, mmlu, gpqa, ifeval, b_score, label_bias, option_order, stereoset, crows_pairs, winogender,
        winobias, redditbias, pronoun_skew, disco, seat, perplexity, multiple_choice_file,
        self_diagnosis, kobbq, esbbq, cabbq, gg_bbq, mbbq, cbbq,
        difference_awareness, winoqueer, discrim_eval, unqover, honest
        """
    ),
    "models": ("demo", "demo-b", "demo-c", "demo-d", "demo-x", "demo-mlm", "oracle", "judge", "endpoint", "vllm"),
    "training_sources": ("demo",),
    "saved_models": ("student",),
}
"""evenhand's own names, in the order in which they are listed; pyproject.toml has an entry point for each."""
RESERVED = {
    "training_sources": ("pairs", "datasets", *BUILT_IN["benchmarks"]),
    "saved_models": ("endpoint", "mitigated"),
}
"""Names that evenhand reads without an entry point; plugins cannot take them."""
FUNCTIONS = {
    "models": "opens a model",
    "training_sources": "returns training data",
    "saved_models": "opens a saved model",
}
"""Kinds that are functions, each with what the function does."""
INSTALL = "run `pip install -e .` in its folder"


class PluginWarning(UserWarning):
    """A plugin that could not be used and was skipped; the message contains its traceback."""


class Broken(NamedTuple):
    """A plugin that was skipped."""

    entry_point: str
    """The entry point as its package declares it, "NAME = MODULE:ATTRIBUTE"."""
    distribution: str
    """The package that declares it, and its version; "" if that is not known."""
    error: str
    """The error that it raised, or why it cannot be used, in one line."""


class Registry:
    """The registered names of one kind."""

    def __init__(self, kind: str, built_in: Iterable[str]) -> None:
        """Make a registry; nothing is looked up before its first use.

        Args:
            kind: A key of `BUILT_IN`; evenhand and its plugins declare entry points in the group "evenhand.<kind>".
            built_in: The names of evenhand's own; they come first, and no plugin replaces them.
        """
        self.kind, self._built_in = kind, tuple(built_in)
        self._places: dict[str, str] = {}
        self._objects: dict[str, Any] = {}
        self._points: dict[str, EntryPoint] = {}
        self._searched = False
        self.problems: dict[str, str] = {}
        """What was skipped: traceback or reason, by name."""
        self.failed_files: dict[str, str] = {}
        """Plugin files that were skipped, with the last line of the traceback; a missing name may be theirs."""

    def names(self) -> list[str]:
        """All names, built-in first; plugins that turned out broken are left out."""
        self._search()
        return [n for n in dict.fromkeys([*self._places, *self._objects]) if n not in self.problems]

    def __contains__(self, name: str) -> bool:
        """Whether something has this name, even if it is a broken plugin."""
        self._search()
        return name in self._places or name in self._objects

    def register(self, thing: Any, name: str | None = None) -> Any:
        """Add a class (or a loader) from a notebook or script; it replaces one that was registered in this way before.

        Returns:
            `thing`, so that this works as a decorator.
        """
        label = name or getattr(thing, "name", None)
        if not isinstance(label, str) or not label.isidentifier():
            raise SettingsError(f"{thing!r} needs a class attribute `name` that is a plain word, not {label!r}")
        if label in self._built_in or label in RESERVED.get(self.kind, ()):
            raise SettingsError(f"the name {label!r} belongs to a built-in; choose another")
        self._objects[label] = _checked(thing, self.kind, label)
        self.problems.pop(label, None)
        return thing

    def get(self, name: str) -> Any:
        """Import and return what is registered as `name`.

        Raises:
            UnknownNameError: The name is not registered; the message lists similar names.
            SettingsError: It is a plugin that cannot be imported; the message contains its traceback.
        """
        self._search()
        if name in self._objects:
            return self._objects[name]
        if name not in self._places:
            failed = " ".join(f"The plugin {file} was skipped: {error}" for file, error in self.failed_files.items())
            raise UnknownNameError(self.kind.removesuffix("s").replace("_", " "), name, self.names(), failed)
        if name not in self.problems:
            try:
                module, _, attribute = self._places[name].partition(":")
                self._objects[name] = _checked(getattr(importlib.import_module(module), attribute), self.kind, name)
                return self._objects[name]
            except Exception:
                if name in self._built_in:
                    raise
                self._skip(name, traceback.format_exc())
        raise SettingsError(f"the plugin {name!r} ({self._places[name]}) is broken:\n{self.problems[name]}")

    def place(self, name: str) -> str | None:
        """Return where a name's class or loader is ("module:attribute"), without import; None if it was registered."""
        self._search()
        return self._places.get(name)

    def broken(self) -> dict[str, Broken]:
        """Return what was skipped so far, by the names in `problems`; `load_all` first finds all that is broken."""
        found = {}
        for name, reason in self.problems.items():
            point = self._points[name]
            source = f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""
            found[name] = Broken(f"{point.name} = {point.value}", source, reason.strip().splitlines()[-1])
        return found

    def load_all(self, leave_out: Container[str] = ()) -> dict[str, Any]:
        """Import everything that works; the rest is in `problems`, each with a warning."""
        found = {}
        for name in self.names():
            if name in leave_out:
                continue
            try:
                found[name] = self.get(name)
            except SettingsError:
                continue
        return found

    def _search(self) -> None:
        if self._searched:
            return
        own = _own_entry_points(f"evenhand.{self.kind}")
        if absent := [name for name in self._built_in if name not in own.names]:
            raise EvenhandError(f"evenhand is not installed here, or was before it had {absent[0]!r}: {INSTALL}")
        self._searched = True
        self._places = {name: own[name].value for name in self._built_in}
        taken = RESERVED.get(self.kind, ())
        for point in entry_points(group=f"evenhand.{self.kind}"):
            if point in own and point.name in self._places:
                continue
            if point.name in self._places or point.name in taken:
                label = f"{point.name} ({point.value})"
                self._points[label] = point
                self._skip(label, "another one of this name is already registered")
            else:
                self._places[point.name], self._points[point.name] = point.value, point

    def _skip(self, name: str, reason: str) -> None:
        self.problems[name] = reason
        kind = self.kind.replace("_", " ")
        warnings.warn(f"skipped the plugin {name!r} of {kind}:\n{reason}", PluginWarning, stacklevel=3)


def _own_entry_points(group: str) -> EntryPoints:
    """Return the entry points of the package evenhand itself."""
    try:
        return distribution("evenhand").entry_points.select(group=group)
    except PackageNotFoundError:
        raise EvenhandError(f"evenhand is not installed here, only on the import path: {INSTALL}") from None


methods = Registry("methods", BUILT_IN["methods"])
benchmarks = Registry("benchmarks", BUILT_IN["benchmarks"])
models = Registry("models", BUILT_IN["models"])
training_sources = Registry("training_sources", BUILT_IN["training_sources"])
saved_models = Registry("saved_models", BUILT_IN["saved_models"])
"""Loaders of the models that a method wrote itself, by the `kind` in their evenhand.json."""


def of_kind(kind: str) -> Registry:
    """Return the registry of a kind.

    Args:
        kind: A key of `BUILT_IN`.
    """
    return {
        "methods": methods,
        "benchmarks": benchmarks,
        "models": models,
        "training_sources": training_sources,
        "saved_models": saved_models,
    }[kind]


def load_plugin(path: str | Path) -> list[str]:
    """Run a plugin file and register the methods and benchmarks that it defines.

    A file that fails is reported with its traceback (a `PluginWarning`) and skipped.

    Returns:
        The names that were registered.
    """
    file = Path(path)
    if not file.is_file():
        raise SettingsError(f"no plugin file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(f"evenhand_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        warnings.warn(f"skipped the plugin {file}:\n{traceback.format_exc()}", PluginWarning, stacklevel=2)
        for registry in (methods, benchmarks):
            registry.failed_files[str(file)] = traceback.format_exception_only(error)[-1].strip()
        return []
    for registry in (methods, benchmarks):
        registry.failed_files.pop(str(file), None)
    names = []
    for thing in vars(module).values():
        if isinstance(thing, type) and thing.__module__ == spec.name and hasattr(thing, "name"):
            found = methods if issubclass(thing, Method) else benchmarks if issubclass(thing, Benchmark) else None
            if found is not None:
                found.register(thing)
                names.append(str(thing.name))
    return names


MethodLike = str | dict[str, Any] | Method
BenchmarkLike = str | dict[str, Any] | Benchmark


def split_specs(text: str) -> list[str]:
    """Split "a,b(k=1),c+d" into its parts."""
    return specs.split(text, ",")


def build_method(what: MethodLike) -> Method:
    """Make a method from `name(key=value)`, a stack `a+b`, `{name: {key: value}}`, or take one as it is.

    `seeds=3` and `wordings=('a', 'b')` among the settings make it a `Repeated` one.
    """
    if isinstance(what, Method):
        return what
    return build_parts(specs.stack(what) if isinstance(what, str) else [_one(what)])


def with_present_names(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a method's settings under present names, without a warning; unchanged for an unknown method."""
    if method not in methods.names():
        return settings
    found: dict[str, Any] = methods.get(method).with_present_names(settings, quiet=True)
    return found


def build_parts(parts: Sequence[specs.Part]) -> Method:
    """Make a method from names with settings, a stack from several; `seeds` and `wordings` in them repeat it."""
    if not parts:
        raise SettingsError("an empty method name; 'none' is the baseline")
    classes = [methods.get(p.name) for p in parts]
    taken = [repeats.take_out(cls, p.settings) for cls, p in zip(classes, parts, strict=True)]
    built: list[Method] = [cls.build(**given) for cls, (given, _, _) in zip(classes, taken, strict=True)]
    return repeats.put_together(built, [seeds for _, seeds, _ in taken], [wordings for _, _, wordings in taken])


def build_benchmark(what: BenchmarkLike) -> Benchmark:
    """Make a benchmark from `name(key=value)` or `{name: {key: value}}`, or take one as it is."""
    if isinstance(what, Benchmark):
        return what
    part = specs.parse(what) if isinstance(what, str) else _one(what)
    built: Benchmark = benchmarks.get(part.name).build(**part.settings)
    return built


def _one(what: dict[str, Any]) -> specs.Part:
    if len(what) != 1:
        raise SettingsError(f"{what!r}: write one name with its settings below it, such as {{'bbq': {{'seed': 1}}}}")
    name, given = next(iter(what.items()))
    if given is not None and not isinstance(given, dict):
        raise SettingsError(f"{what!r}: below a name, settings are a mapping, such as {{'bbq': {{'seed': 1}}}}")
    return specs.Part(str(name), {str(k): v for k, v in (given or {}).items()})


def _checked(thing: Any, kind: str, name: str) -> Any:
    if kind in FUNCTIONS and not callable(thing):
        raise SettingsError(f"{name!r} is registered as {thing!r}, which is not a function that {FUNCTIONS[kind]}")
    base = {"methods": Method, "benchmarks": Benchmark}.get(kind)
    if base is not None and not (isinstance(thing, type) and issubclass(thing, base)):
        raise SettingsError(f"{name!r} is registered as {thing!r}, which is not a subclass of evenhand.{base.__name__}")
    if base is not None and thing.name != name:
        raise SettingsError(f"registered as {name!r}, but its class says name = {thing.name!r}; make them the same")
    return thing
