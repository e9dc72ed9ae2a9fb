"""Old import paths: every one still works, warns, and gives the module that its new path gives."""

from __future__ import annotations

import importlib
import inspect
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import evenhand
from evenhand.core import moved

DOCUMENTED = [
    "answer_verifier:accept",
    "artefacts:artefacts",
    "artefacts:artefact",
    "chat_template:probed",
    "comparison:compare",
    "conversation:conversation",
    "data.proving_ground.files:",
    "data.proving_ground.oracle:open_oracle",
    "engine:Engine",
    "engine.suppression:SelfDebiasingProcessor",
    "evaluation.modules:path",
    "lm_eval_bridge:as_lm",
    "methods.pcgu:PCGU",
    "methods.task_vector:TaskVectorNegation",
    "orders:pairwise",
    "remarks:",
    "rules:EvidenceGate",
    "rules:project",
    "rules:project_tree",
    "rules:resolve",
    "rules:rule_pack",
    "rules.packs:",
    "serving:serve",
    "thinking:",
    "train_data:load",
    "versions:",
]
"""What README, docs, notebooks and CONTRIBUTING ever named by a path that has moved: "module:name"."""
STAYED = [
    "compare",
    "interfaces:Question",
    "errors:EvenhandError",
    "evaluation.bbq:BBQ",
    "evaluation.holistic_bias:sentences",
    "load",
    "methods.none:Untouched",
    "methods.permutation:Permutation",
    "models.adapters:",
    "models.kept_hash:",
    "models.mitigated:Mitigated",
    "proving_ground:truth",
    "proving_ground.family:",
    "report:Report",
    "settings",
    "statistics:Design",
    "testing:check_method",
    "wrap",
]
"""Public names whose paths did not change."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Every old name is looked up anew, as in a new process."""
    old_names = [name for name in sys.modules if moved.new_name(name)]
    for package, old in [(sys.modules[old.rpartition(".")[0]], old) for old in old_names]:
        last = old.rpartition(".")[2]
        if f"{package.__name__}.{last}" in (old, *old_names) or f"{package.__name__}.{last}" not in sys.modules:
            vars(package).pop(last, None)
    for old in old_names:
        del sys.modules[old]
    yield


@pytest.mark.parametrize("old", moved.MOVED)
def test_every_old_module_is_the_new_one_and_warns(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"evenhand.{old} is now evenhand.{moved.MOVED[old]}"):
        module = importlib.import_module(f"evenhand.{old}")
    assert module is importlib.import_module(f"evenhand.{moved.MOVED[old]}")
    assert module.__spec__ is not None
    assert module.__name__ == module.__spec__.name == f"evenhand.{moved.MOVED[old]}"
    assert hasattr(module, "__path__") == (module.__spec__.submodule_search_locations is not None)


@pytest.mark.parametrize("place", DOCUMENTED)
def test_documented_names_are_still_there(place: str) -> None:
    module, _, name = place.partition(":")
    with pytest.warns(DeprecationWarning):
        found = importlib.import_module(f"evenhand.{module}")
    assert not name or callable(getattr(found, name))


@pytest.mark.parametrize("place", STAYED)
def test_paths_that_stayed_do_not_warn(place: str) -> None:
    module, _, name = place.partition(":") if ":" in place else ("", "", place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = importlib.import_module(f"evenhand.{module}".rstrip("."))
        assert not name or getattr(found, name)


def test_from_import_attribute_and_submodule() -> None:
    with pytest.warns(DeprecationWarning, match="evenhand.conversation is now") as told:
        from evenhand import conversation
    assert conversation.__name__ == "evenhand.prompting.sessions"
    assert told[0].filename == __file__, "the warning names the line that imports"
    with pytest.warns(DeprecationWarning, match="evenhand.orders is now") as told:
        found = getattr(evenhand, "orders")  # noqa: B009  type checkers do not know old names
    assert found is sys.modules["evenhand.prompting.option_orders"]
    assert told[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="evenhand.evaluation.modules is now"):
        import evenhand.evaluation.modules as modules
    assert modules.path("bbq_score").endswith("bbq_score.py")
    with pytest.warns(DeprecationWarning, match="evenhand.rules.packs is now evenhand.methods.distillation"):
        import evenhand.rules.packs as packs
    assert packs is sys.modules["evenhand.methods.distillation.rules.packs"], "one module, not a copy of its file"


@pytest.mark.parametrize(
    "old", ["rules.packs", "serving.app", "evaluation.modules.bbq_score.bbq_score", "data.proving_ground.files"]
)
def test_a_module_in_a_package_that_has_moved_gives_one_warning(old: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        importlib.import_module(f"evenhand.{old}")
    about = [str(w.message) for w in told if "the old name works" in str(w.message)]
    assert about == [f"evenhand.{old} is now {moved.new_name(f'evenhand.{old}')}; the old name works for one release"]


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        ("report.text", "duration", "evenhand.core.text_output.duration"),
        ("report.text", "visible", "evenhand.core.text_output.visible"),
        ("evaluation.metrics.multiple_choice", "exam_marks", "exam_row and exam_formulas of a QuestionBenchmark"),
    ],
)
def test_a_name_that_moved_out_of_a_module_is_found_and_warns(module: str, name: str, instead: str) -> None:
    found = importlib.import_module(f"evenhand.{module}")
    with pytest.warns(DeprecationWarning, match=f"evenhand.{module}.{name} is now {instead}; ") as told:
        assert getattr(found, name).__name__ == name
    assert [w.filename for w in told] == [__file__]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(found, "nothing")  # noqa: B009


def test_exams_of_the_previous_release_have_the_numbers_of_the_present_form() -> None:
    from evenhand.evaluation.metrics.old_exams import exam_marks, exam_metrics, exam_tally
    from evenhand.evaluation.mmlu import MMLU
    from evenhand.interfaces import Choice

    bench = MMLU(source="demo")
    items = bench.load()[:12]
    answers = [Choice(n % 4, mass=n / 12) if n % 5 else Choice(None, status="unparsed") for n in range(12)]
    own = bench.tally(items, answers)

    def groups_of(item: Any) -> list[str]:
        return ["overall", *filter(None, bench.groups_of(item))]

    tally = exam_tally(items, answers, own.groups, groups_of, bench.stratum)
    assert (tally.clusters, tally.strata, tally.groups) == (own.clusters, own.strata, own.groups)
    found, expected = exam_metrics(tally.sums.sum(axis=0), "unparsed"), bench.compute(own.sums.sum(axis=0))
    assert found.keys() == expected.keys()
    for name, measured in expected.items():
        np.testing.assert_array_equal(found[name].value, measured.value, err_msg=name)
    assert exam_marks(items, answers, groups_of) == bench.grades(items, answers)


def test_a_change_through_the_old_name_is_seen_through_the_new(monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.core import versions

    with pytest.warns(DeprecationWarning):
        old = importlib.import_module("evenhand.versions")
    name = next(name for name, value in vars(versions).items() if name.isupper() and isinstance(value, int))
    monkeypatch.setattr(f"evenhand.versions.{name}", -1)
    assert getattr(versions, name) == getattr(old, name) == -1


def test_reload_inspect_and_pickle() -> None:
    with pytest.warns(DeprecationWarning):
        module: ModuleType = importlib.import_module("evenhand.conversation")
    again = importlib.reload(module)
    assert again is module is sys.modules["evenhand.prompting.sessions"]
    assert inspect.getsourcefile(module) == module.__file__
    assert inspect.getmodule(module.conversation) is module
    del sys.modules["evenhand.conversation"]
    with pytest.warns(DeprecationWarning):
        assert pickle.loads(b"cevenhand.conversation\nconversation\n.") is module.conversation
    assert pickle.loads(pickle.dumps(module.conversation)) is module.conversation


def test_sweep_is_a_function_and_its_module_has_its_new_path_alone() -> None:
    from evenhand.experiment.sweep import sweep

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evenhand.sweep is sweep
    with pytest.raises(ModuleNotFoundError, match=r"evenhand\.sweep"):
        importlib.import_module("evenhand.sweep")


def test_typos_are_still_errors() -> None:
    for name in ("evenhand.conversations", "evenhand.conversation.nothing", "evenhand.rules.nothing"):
        with pytest.raises(ModuleNotFoundError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    for package in ("evenhand", "evenhand.methods", "evenhand.evaluation", "evenhand.methods.permutation"):
        with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
            getattr(importlib.import_module(package), "nothing")  # noqa: B009
    assert moved.new_name("evenhand") is moved.new_name("rules") is moved.new_name("evenhand.models.loading") is None


def test_an_old_name_runs_as_a_program() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "evenhand.versions"]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


def test_the_finder_is_there_once() -> None:
    moved.install()
    assert sum(type(finder).__module__ == "evenhand.core.moved" for finder in sys.meta_path) == 1
