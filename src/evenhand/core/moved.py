"""Old import paths: a module that has moved is still found under its old name for one release, with a warning.

One module then has two names, so that what is changed through one is changed through the other.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader  # not at run time: `import evenhand` would take twice as long

MOVED = {
    "answer_verifier": "evaluation.metrics.b_score_verifier",
    "artefacts": "core.artifacts",
    "cache": "core.answer_cache",
    "cells": "experiment.cells",
    "changes": "evaluation.metrics.answer_changes",
    "chat_template": "prompting.chat_template",
    "comparison": "experiment.comparison",
    "config": "experiment.config",
    "contracts": "experiment.contracts",
    "conversation": "prompting.sessions",
    "criteria": "statistics.criteria",
    "data.csv_files": "data.io.csv",
    "data.delimited": "data.io.delimited",
    "data.demo": "models.demo",
    "data.fetching": "data.io.download",
    "data.official": "data.io.checksums",
    "data.prompt_packs": "prompting.prompt_packs",
    "data.proving_ground": "proving_ground.generator",
    "data.proving_ground.bbq": "proving_ground.generator.bbq_questions",
    "data.proving_ground.judges": "proving_ground.judges",
    "data.proving_ground.oracle": "proving_ground.oracle",
    "data.rows": "data.io.rows",
    "data.sources": "data.io.locate",
    "data.yaml_file": "data.io.yaml",
    "engine": "inference",
    "engine.budget": "inference.memory_budget",
    "engine.forest": "inference.tree_forward",
    "engine.kept": "inference.session_kv_cache",
    "engine.slots": "inference.kv_slots",
    "engine.suppression": "methods.prompting.suppression",
    "engine.top": "inference.top_tokens",
    "engine.trie": "inference.prefix_trie",
    "engine.trying": "inference.support_probe",
    "evaluation.modules": "evaluation.hf_evaluate",
    "exams": "evaluation.metrics.multiple_choice",
    "ifeval_checkers": "evaluation.metrics.ifeval_checkers",
    "label_metrics": "evaluation.metrics.label_bias",
    "leakage": "experiment.decontamination",
    "likelihood": "evaluation.metrics.sentence_scores",
    "lm_eval_bridge": "integrations.lm_eval",
    "methods.batch_calibration": "methods.calibration.batch_calibration",
    "methods.contextual_calibration": "methods.calibration.contextual_calibration",
    "methods.counterfactual_distillation": "methods.distillation.counterfactual_distillation",
    "methods.cross_model_adjudication": "methods.adjudication.cross_model_adjudication",
    "methods.deep_to_shallow": "methods.distillation.deep_to_shallow",
    "methods.domain_calibration": "methods.calibration.domain_calibration",
    "methods.fair_distillation": "methods.distillation.fair_distillation",
    "methods.instruction": "methods.prompting.instruction",
    "methods.intent_self_correction": "methods.prompting.intent_self_correction",
    "methods.looc": "methods.calibration.looc",
    "methods.moral_self_correction": "methods.prompting.moral_self_correction",
    "methods.pcgu": "methods.unlearning.pcgu",
    "methods.permutation_distillation": "methods.permutation.permutation_distillation",
    "methods.preference": "methods.unlearning.preference",
    "methods.pride": "methods.calibration.pride",
    "methods.prior_matching": "methods.calibration.prior_matching",
    "methods.self_debias": "methods.prompting.self_debias",
    "methods.self_debias_decoding": "methods.prompting.self_debias_decoding",
    "methods.task_vector": "methods.unlearning.task_vector",
    "models.encoding": "models.tokenization",
    "models.trainable": "training.trainable",
    "moments": "statistics.moments",
    "no_effect": "experiment.no_effect",
    "orders": "prompting.option_orders",
    "plan": "experiment.plan",
    "progress": "core.progress",
    "prompts": "prompting.rendering",
    "provenance": "core.provenance",
    "ranks": "statistics.mann_whitney",
    "readings": "models.readings",
    "rechecks": "core.rechecks",
    "records": "core.records",
    "registry": "core.registry",
    "remarks": "prompting.remarks",
    "repeats": "core.repeats",
    "reply_parsing": "prompting.reply_parsing",
    "rules": "methods.distillation.rules",
    "scoring": "experiment.scoring",
    "serving": "integrations.openai_server",
    "specs": "core.specs",
    "store": "core.run_folder",
    "subsampling": "experiment.subsampling",
    "teacher": "prompting.permutation_ensemble",
    "text_source": "data.text_source",
    "thinking": "prompting.thinking",
    "train_data": "experiment.training_data",
    "train_sources": "experiment.training_sources",
    "training.through_trl": "training.trl",
    "turns": "prompting.multi_turn",
    "unanswered": "evaluation.metrics.unanswered",
    "versions": "core.versions",
    "worst_group": "experiment.worst_group",
}
"""New module by old module, below `evenhand`; a package stands for the modules in it too.

Modules that only one family of methods used are private now (`methods/FAMILY/_NAME.py`) and have no old name here.
"""


class _Mover:
    """Loader that returns the module from its new place; it is one module under two names."""

    def __init__(self, new: str) -> None:
        self._new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if not _imported_for_another(spec.name):
            _warn(spec.name, self._new, stacklevel=3)
        module = importlib.import_module(self._new)
        self._spec = module.__spec__  # the import system replaces it with the old name's
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec

    def get_code(self, fullname: str) -> CodeType | None:
        """Have `python -m OLD.NAME` run the module."""
        from importlib.abc import InspectLoader  # both here: they are slow to import and hardly ever needed
        from importlib.util import find_spec

        spec = find_spec(self._new)
        return spec.loader.get_code(self._new) if spec is not None and isinstance(spec.loader, InspectLoader) else None


class _Finder:
    """Finder that comes first: below a moved package, others would make a second module of the same file."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = new_name(fullname)
        return ModuleSpec(fullname, cast("Loader", _Mover(new))) if new else None


def new_name(old: str) -> str | None:
    """Return a module's new name, or None if it did not move; "evenhand.rules.packs" moves with "evenhand.rules"."""
    name = old.removeprefix("evenhand.")
    if name == old:
        return None
    head, rest = name, ""
    while head:
        if head in MOVED:
            return f"evenhand.{MOVED[head]}{rest}"
        head, dot, last = head.rpartition(".")
        rest = f"{dot}{last}{rest}"
    return None


def attribute(package: str, name: str) -> ModuleType | None:
    """Return `package.name` if that was a module before it moved; for the `__getattr__` of packages.

    Python imports no module for `evenhand.conversation` alone: it existed as soon as anything had imported it.
    """
    old = f"{package}.{name}"
    new = new_name(old)
    if new is None:
        return None
    _warn(old, new, stacklevel=4)
    module = sys.modules[old] = importlib.import_module(new)
    setattr(sys.modules[package], name, module)
    return module


def moved_names(module: str, places: Mapping[str, str], *, instead: str = "") -> Callable[[str], Any]:
    """Make a module's `__getattr__` for names that have moved out of it; they work for one release, with a warning.

    Define it `if not TYPE_CHECKING`, as type checkers would otherwise take any name for one of the module.

    Args:
        module: The module's `__name__`.
        places: The module that has each name now.
        instead: What to use in place of these names, if they exist for one release only.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", instead or f"{places[name]}.{name}", stacklevel=3)
        return getattr(importlib.import_module(places[name]), name)

    return get


def install() -> None:
    """Make old names importable from now on; once per process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _warn(old: str, new: str, stacklevel: int) -> None:
    warnings.warn(f"{old} is now {new}; the old name works for one release", DeprecationWarning, stacklevel=stacklevel)


def _imported_for_another(name: str) -> bool:
    """Whether a package is imported because of a module in it, whose own warning suffices."""
    frame: FrameType | None = sys._getframe(2)
    asked = name
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        if frame.f_code.co_name == "_find_and_load":
            asked = str(frame.f_locals["name"])
        frame = frame.f_back
    return asked.startswith(f"{name}.")
