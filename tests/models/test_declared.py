"""What `Model` declares: defaults for minimal models, and a stack of methods that passes all of it on."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand.errors import MissingAbilityError, SettingsError
from evenhand.interfaces import (
    OPEN,
    UNLIMITED,
    Ability,
    Choice,
    Dialogue,
    Method,
    Model,
    Passage,
    Question,
    Reading,
    Reply,
    Sampling,
    Score,
    Stack,
    TrainData,
    Weights,
    settings,
)
from evenhand.models.mitigated import Mitigated
from evenhand.testing import questions

ROOT = Path(__file__).parents[2]
OWN = {
    "name": "a wrapper's label has the method in it",
    "fingerprint": "it depends on the method",
    "abilities": "a method may take some away",
    "facts": "they name the method",
    "save": "the method is saved, too",
    "verbs": "a method replaces them",
    "declared": "the methods' own readings",
    "behind": "the method would be left out",
    "supports_prefixes": "see behind",
    "unsupported": "an error about the wrapper itself",
    "lacks": "the old name of it",
}
"""What a wrapper answers itself, and why."""
DECLARED = sorted(
    {n for cls in (Model,) for n in (*vars(cls), *cls.__annotations__) if not n.startswith("_")} - set(OWN)
)


class Minimal(Model):
    """No more than a plugin has to write."""

    name = "minimal"
    fingerprint = "minimal"

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset()

    def save(self, folder: str | Path) -> Path:
        raise NotImplementedError


class Telling(Minimal):
    """Has something of its own to say to everything that a model declares."""

    source = "org/telling"
    load_options: ClassVar[dict[str, Any]] = {"revision": "r1"}  # type: ignore[misc]
    answer_by = "text"
    sampling = Sampling(temperature=0.5)
    too_long = "skip"
    thinking_tokens = 7
    architecture = "seq2seq"
    context_length = 11
    asking: ClassVar[dict[str, Any]] = {"name": "telling"}  # type: ignore[misc]
    precision: ClassVar[dict[str, Any]] = {"dtype": "bfloat16"}  # type: ignore[misc]
    edited = True
    weights_hash = "abc"
    weights = Weights(*("module", "tokenizer"))  # type: ignore[arg-type]
    unedited_source = None
    rehashed = 0

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"choose", "generate", "score", "weights"})

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        return [Choice(1) for _ in questions]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        return [Reply(f"said at {sampling.temperature}") for _ in dialogues]

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        return [Score(-1.0, 1) for _ in passages]

    @contextmanager
    def editing(self) -> Iterator[Weights]:
        yield self.weights

    def rehash(self) -> None:
        self.rehashed += 1


@settings
class Around(Method):
    """Changes nothing."""

    name: ClassVar[str] = "around"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self)


def value(model: Model, name: str) -> Any:
    """What comes of an attribute, or of calling it where it is a function."""
    calls: dict[str, Any] = {
        "choose": lambda: model.choose(questions(2)),
        "generate": lambda: model.generate([Dialogue(())], Sampling(temperature=0.1)),
        "score": lambda: model.score([Passage("x")]),
        "editing": lambda: _edited(model),
        "rehash": model.rehash,
    }
    return calls[name]() if name in calls else getattr(model, name)


def _edited(model: Model) -> Weights:
    with model.editing() as weights:
        return weights


@pytest.mark.parametrize("name", DECLARED)
def test_a_stack_of_three_methods_passes_on_what_a_model_declares(name: str) -> None:
    base = Telling()
    stack = Stack((Around(), Around(), Around())).apply(base)
    assert isinstance(stack, Mitigated) and stack.base is not base
    default = (
        None if name in ("choose", "generate", "score", "weights", "editing", "rehash") else value(Minimal(), name)
    )
    assert value(stack, name) == value(base, name)
    assert default is None or value(base, name) != default, f"give Telling a {name} of its own"


def test_a_stack_hashes_the_weights_below_it() -> None:
    base = Telling()
    Stack((Around(), Around(), Around())).apply(base).rehash()
    assert base.rehashed == 1


def test_a_minimal_model_says_what_is_not_known() -> None:
    model = Minimal()
    assert (model.source, model.answer_by, model.sampling, model.architecture, model.weights_hash) == (None,) * 5
    assert model.context_length == UNLIMITED and model.declared == OPEN and not model.edited
    assert (dict(model.load_options), dict(model.asking), dict(model.precision)) == ({}, {}, {})
    for refused in (lambda: model.choose([]), lambda: model.weights, lambda: model.behind([], lambda x: x, 0)):
        with pytest.raises(MissingAbilityError, match="minimal"):
            refused()


def test_what_a_model_declares_can_be_set_on_the_object() -> None:
    model = Minimal()
    model.context_length, model.asking, model.precision = 5, {"name": "x"}, {"dtype": "float16"}
    model.edited, model.weights_hash, model.declared = True, "k", Reading("letters")
    wrapped = Around().apply(model)
    assert (wrapped.context_length, wrapped.asking, wrapped.precision) == (5, {"name": "x"}, {"dtype": "float16"})
    assert (wrapped.edited, wrapped.weights_hash, wrapped.declared) == (True, "k", Reading("letters"))


def test_prefixes_would_go_round_the_methods_so_that_a_wrapper_refuses_them() -> None:
    class Guided(Telling):
        def behind(self, prefixes: Sequence[str], combine: Any, settings: object) -> Model:
            return self

    assert Guided().supports_prefixes
    wrapped = Around().apply(Guided())
    assert not wrapped.supports_prefixes
    with pytest.raises(MissingAbilityError, match="prefixes"):
        wrapped.behind([], lambda x: x, 0)


def test_the_old_name_of_an_error_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"Model\.unsupported"):
        assert "cannot 'score'" in str(Minimal().lacks("score"))


# ------------------------------------------------------------------------------------------------ methods


def test_identity_and_position_are_inverse() -> None:
    plain = Question("q", "?", ("a", "b", "c"))
    for question in (plain, plain.reordered((2, 0, 1))):
        for position, option in enumerate(question.order):
            assert (question.option_at(position), question.position_of(option)) == (option, position)


@settings
class Old(Method):
    """Written for the previous release."""

    name: ClassVar[str] = "old"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})

    def missing(self, model: Model) -> str:
        return Method.missing(self, model) or ("no telling" if model.name == "telling" else "")

    def untrained(self, data: TrainData | None) -> str:
        return Method.untrained(self, data) or ("no texts" if data is None or not data.texts else "")

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self)


def test_functions_of_a_method_under_their_old_names_are_asked_with_a_warning() -> None:
    method, data = Old(), TrainData(texts=("x",))
    named = Telling()
    named.name = "telling"
    with pytest.warns(DeprecationWarning, match=r"missing\(model\) is now unsupported_reason\(model, data\)"):
        assert method.unsupported_reason(Minimal(), data) == "old needs choose; minimal has "
    with pytest.warns(DeprecationWarning, match="the old name works for one release"):
        assert method.unsupported_reason(named, data) == "no telling"
    with pytest.warns(DeprecationWarning, match=r"untrained\(data\) is now"):
        assert method.unsupported_reason(Telling()) == "no texts"
    with pytest.warns(DeprecationWarning):
        assert method.unsupported_reason(Telling(), data) == ""


@settings
class Needy(Around):
    """Needs a verb and data."""

    name: ClassVar[str] = "needy"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    needs_data: ClassVar[bool] = True


def test_a_method_can_be_asked_under_the_old_names() -> None:
    with pytest.warns(DeprecationWarning, match="unsupported_reason"):
        assert Needy().missing(Minimal()).startswith("needy needs choose")
    with pytest.warns(DeprecationWarning, match="unsupported_reason"):
        assert Needy().missing(Telling()) == ""
    with pytest.warns(DeprecationWarning, match="unsupported_reason"):
        assert "training data" in Needy().untrained(None)


def test_a_stack_judges_the_model_by_its_first_part_and_the_data_by_all() -> None:
    stack = Stack((Around(), Needy()))
    assert stack.unsupported_reason(Minimal(), TrainData()) == ""
    assert "training data" in stack.unsupported_reason(Minimal())
    with pytest.raises(SettingsError, match="training data"):
        stack.apply(Telling())
    with pytest.raises(MissingAbilityError, match="needs choose"):
        stack.apply(Minimal(), TrainData())


# ----------------------------------------------------------------------------------------------- the source

LOOKED_INTO = {"model", "mitigated", "teacher", "leaf", "plain", "method", "built", "benchmark", "question"}
"""Names under which the source has models, methods, benchmarks and questions; all they have is declared."""


def _sources() -> list[Path]:
    folders = (ROOT / "src/evenhand", ROOT / "methods", ROOT / "evaluation", ROOT / "data")
    return sorted({path.resolve() for folder in folders for path in folder.rglob("*.py")})


def test_no_undeclared_attribute_is_reached_by_ignoring_types() -> None:
    assert [str(p.relative_to(ROOT)) for p in _sources() if "ignore[attr-" + "defined]" in p.read_text("utf-8")] == []


def test_no_attribute_of_a_model_method_benchmark_or_question_is_looked_for() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
        if _last_name(node.args[0]) in LOOKED_INTO
    ]
    assert found == []


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_methods_name_their_readings_in_a_stack() -> None:
    @settings
    class Reads(Around):
        name: ClassVar[str] = "reads"

        def reading(self, model: Model) -> Reading | None:
            return Reading("generation")

    stack = Stack((Reads(), Around())).apply(Telling())
    assert (stack.declared, stack.answer_by, stack.sampling) == (
        Reading("generation"), "generation", Sampling(temperature=0.5),
    )  # fmt: skip
