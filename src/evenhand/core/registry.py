"""Names to classes: built-in, installed plugins, notebook objects, plugin files. Imports nothing until asked."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from evenhand.core import repeats, specs
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.interfaces import Benchmark, Method

BUILT_IN = {
    "methods": {
        "none": "evenhand.methods.none:Untouched",
        "self_debias": "evenhand.methods.prompting.self_debias:SelfDebias",
        "instruction": "evenhand.methods.prompting.instruction:Instruction",
        "self_debias_decoding": "evenhand.methods.prompting.self_debias_decoding:SelfDebiasDecoding",
        "moral_self_correction": "evenhand.methods.prompting.moral_self_correction:MoralSelfCorrection",
        "intent_self_correction": "evenhand.methods.prompting.intent_self_correction:IntentSelfCorrection",
        "permutation": "evenhand.methods.permutation.permutation:Permutation",
        "permutation_distillation": "evenhand.methods.permutation.permutation_distillation:PermutationDistillation",
        "pride": "evenhand.methods.calibration.pride:PriDe",
        "prior_matching": "evenhand.methods.calibration.prior_matching:PriorMatching",
        "contextual_calibration": "evenhand.methods.calibration.contextual_calibration:ContextualCalibration",
        "domain_calibration": "evenhand.methods.calibration.domain_calibration:DomainCalibration",
        "batch_calibration": "evenhand.methods.calibration.batch_calibration:BatchCalibration",
        "looc": "evenhand.methods.calibration.looc:LeaveOneOutCalibration",
        "fair_distillation": "evenhand.methods.distillation.fair_distillation:FairDistillation",
        "counterfactual_distillation": "evenhand.methods.distillation.counterfactual_distillation:CounterfactualDistillation",
        "deep_to_shallow": "evenhand.methods.distillation.deep_to_shallow:DeepToShallow",
        "task_vector": "evenhand.methods.unlearning.task_vector:TaskVectorNegation",
        "pcgu": "evenhand.methods.unlearning.pcgu:PCGU",
        "preference": "evenhand.methods.unlearning.preference:Preference",
        "cross_model_adjudication": "evenhand.methods.adjudication.cross_model_adjudication:CrossModelAdjudication",
    },
    "benchmarks": {
        "bbq": "evenhand.evaluation.bbq:BBQ",
        "holistic_bias": "evenhand.evaluation.holistic_bias:HolisticBias",
        "mmlu": "evenhand.evaluation.mmlu:MMLU",
        "gpqa": "evenhand.evaluation.gpqa:GPQA",
        "ifeval": "evenhand.evaluation.ifeval:IFEval",
        "b_score": "evenhand.evaluation.b_score:BScore",
        "label_bias": "evenhand.evaluation.label_bias:LabelBias",
        "option_order": "evenhand.evaluation.option_order:OptionOrder",
        "stereoset": "evenhand.evaluation.stereoset:StereoSet",
        "crows_pairs": "evenhand.evaluation.crows_pairs:CrowSPairs",
        "winogender": "evenhand.evaluation.winogender:Winogender",
        "winobias": "evenhand.evaluation.winobias:WinoBias",
        "redditbias": "evenhand.evaluation.redditbias:RedditBias",
        "pronoun_skew": "evenhand.evaluation.pronoun_skew:PronounSkew",
        "disco": "evenhand.evaluation.disco:DisCo",
        "perplexity": "evenhand.evaluation.perplexity:Perplexity",
    },
    "models": {
        "demo": "evenhand.models.demo:demo",
        "demo-b": "evenhand.models.demo:demo_b",
        "demo-c": "evenhand.models.demo:demo_c",
        "demo-d": "evenhand.models.demo:demo_d",
        "demo-mlm": "evenhand.models.demo:demo_mlm",
        "oracle": "evenhand.proving_ground.oracle:open_oracle",
        "judge": "evenhand.proving_ground.judges:load_judge",
        "endpoint": "evenhand.models.endpoint:open_endpoint",
        "vllm": "evenhand.models.vllm:open_vllm",
    },
}


class PluginWarning(UserWarning):
    """A plugin that could not be used and was skipped; the message holds its traceback."""


class Registry:
    """The names of one kind."""

    def __init__(self, kind: str, built_in: dict[str, str]) -> None:
        """Start with the built-in table; plugins are looked up at first use.

        Args:
            kind: "methods", "benchmarks" or "models"; plugins declare entry points in the group "evenhand.<kind>".
            built_in: Name to "module:attribute".
        """
        self.kind, self._places = kind, dict(built_in)
        self._objects: dict[str, Any] = {}
        self._searched = False
        self.problems: dict[str, str] = {}
        """What was skipped: name to traceback or reason."""

    def names(self) -> list[str]:
        """All names, built-in first; plugins that turned out broken are left out."""
        self._search()
        return [n for n in dict.fromkeys([*self._places, *self._objects]) if n not in self.problems]

    def register(self, thing: Any, name: str | None = None) -> Any:
        """Add a class (or, for models, a loader) from a notebook or script; it replaces one registered likewise before.

        Returns:
            `thing`, so that this works as a decorator.
        """
        label = name or getattr(thing, "name", None)
        if not isinstance(label, str) or not label.isidentifier():
            raise SettingsError(f"{thing!r} needs a class attribute `name` that is a plain word, not {label!r}")
        if label in BUILT_IN[self.kind]:
            raise SettingsError(f"the name {label!r} belongs to a built-in; choose another")
        self._objects[label] = _checked(thing, self.kind, label)
        self.problems.pop(label, None)
        return thing

    def get(self, name: str) -> Any:
        """Import and return what is registered as `name`.

        Raises:
            UnknownNameError: Nothing is; the message lists the near names.
            SettingsError: It is a plugin that cannot be imported; the message holds its traceback.
        """
        self._search()
        if name in self._objects:
            return self._objects[name]
        if name not in self._places:
            raise UnknownNameError(self.kind.removesuffix("s"), name, self.names())
        if name not in self.problems:
            try:
                module, _, attribute = self._places[name].partition(":")
                self._objects[name] = _checked(getattr(importlib.import_module(module), attribute), self.kind, name)
                return self._objects[name]
            except Exception:
                if name in BUILT_IN[self.kind]:
                    raise
                self._skip(name, traceback.format_exc())
        raise SettingsError(f"the plugin {name!r} ({self._places[name]}) is broken:\n{self.problems[name]}")

    def load_all(self) -> dict[str, Any]:
        """Import everything that works; what does not is in `problems` and was warned of."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except SettingsError:
                continue
        return found

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for point in _entry_points(f"evenhand.{self.kind}"):
            if point.name in self._places:
                self._skip(f"{point.name} ({point.value})", "another one of this name is already registered")
            else:
                self._places[point.name] = point.value

    def _skip(self, name: str, reason: str) -> None:
        self.problems[name] = reason
        warnings.warn(f"skipped the plugin {name!r} of {self.kind}:\n{reason}", PluginWarning, stacklevel=3)


def _entry_points(group: str) -> Iterable[EntryPoint]:
    return entry_points(group=group)


methods = Registry("methods", BUILT_IN["methods"])
benchmarks = Registry("benchmarks", BUILT_IN["benchmarks"])
models = Registry("models", BUILT_IN["models"])


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
        raise SettingsError(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception:
        warnings.warn(f"skipped the plugin {file}:\n{traceback.format_exc()}", PluginWarning, stacklevel=2)
        return []
    names = []
    for thing in vars(module).values():
        if isinstance(thing, type) and thing.__module__ == spec.name and hasattr(thing, "name"):
            registry = methods if issubclass(thing, Method) else benchmarks if issubclass(thing, Benchmark) else None
            if registry is not None:
                registry.register(thing)
                names.append(str(thing.name))
    return names


MethodLike = str | dict[str, Any] | Method
BenchmarkLike = str | dict[str, Any] | Benchmark


def split_specs(text: str) -> list[str]:
    """The parts of "a,b(k=1),c+d"."""
    return specs.split(text, ",")


def build_method(what: MethodLike) -> Method:
    """Make a method from `name(key=value)`, a stack `a+b`, `{name: {key: value}}`, or take one as it is.

    `seeds=3` and `wordings=('a', 'b')` among the settings make it a `Repeated` one.
    """
    if isinstance(what, Method):
        return what
    return build_parts([specs.parse(p) for p in specs.split(what, "+")] if isinstance(what, str) else [_one(what)])


def build_parts(parts: Sequence[specs.Part]) -> Method:
    """Make a method from names with their settings, a stack of several; `seeds` and `wordings` in them repeat it."""
    if not parts:
        raise SettingsError("an empty method name; 'none' is the untouched model")
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
    base = {"methods": Method, "benchmarks": Benchmark}.get(kind)
    if base is not None and not (isinstance(thing, type) and issubclass(thing, base)):
        raise SettingsError(f"{name!r} is registered as {thing!r}, which is no subclass of evenhand.{base.__name__}")
    if base is not None and thing.name != name:
        raise SettingsError(f"registered as {name!r}, but its class says name = {thing.name!r}; make them the same")
    return thing
