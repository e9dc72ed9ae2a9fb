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
    TrainingRecord,
    Weights,
    settings,
)
from evenhand.models.local import LocalModel
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
    "methods": "the method is one of them",
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
    inside_saved = True
    load_options: ClassVar[dict[str, Any]] = {"revision": "r1"}  # type: ignore[misc]
    answer_by = "text"
    sampling = Sampling(temperature=0.5)
    too_long = "skip"
    thinking_tokens = 7
    architecture = "seq2seq"
    training = TrainingRecord(method="telling")
    context_length = 11
    asking: ClassVar[dict[str, Any]] = {"name": "telling"}  # type: ignore[misc]
    precision: ClassVar[dict[str, Any]] = {"dtype": "bfloat16"}  # type: ignore[misc]
    edited = True
    save_refused = "its weights lie elsewhere"
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
    guided = Stack((Around(), Needy())).apply(Guided(), TrainData())
    assert isinstance(guided, Mitigated) and isinstance(guided.base, Mitigated)
    guided.base.base.name = "inner"
    with pytest.raises(
        MissingAbilityError, match=r"'inner', the model below, can, but .* without around\+needy\. Apply .*"
    ):
        guided.behind([], lambda x: x, 0)


def test_what_cannot_be_guided_by_prefixes_is_named_below_its_methods() -> None:
    wrapped = Stack((Around(), Around())).apply(Minimal())
    remedy = r"is not a causal model in this process.*evenhand\.load or evenhand\.wrap"
    with pytest.raises(
        MissingAbilityError, match=rf"'minimal\+around\+around' cannot .* 'minimal', the model below, {remedy}"
    ):
        wrapped.behind([], lambda x: x, 0)
    with pytest.raises(MissingAbilityError, match=rf"model 'minimal' cannot be guided by prefixes: it {remedy}"):
        Minimal().behind([], lambda x: x, 0)


def test_weights_can_be_set_on_the_object() -> None:
    class InMemory(Minimal):
        def __init__(self, given: Any) -> None:
            self.weights = given

    given = Weights(*("module", "tokenizer"))  # type: ignore[arg-type]
    model = InMemory(given)
    assert model.weights is given and Around().apply(model).weights is given and _edited(model) is given
    with pytest.raises(SettingsError, match=r"InMemory: weights are set to str; give evenhand\.interfaces\.Weights\("):
        InMemory("module")
    with pytest.raises(MissingAbilityError, match="cannot 'weights'"):
        _ = Minimal().weights


def test_weights_that_are_not_the_objects_own_cannot_be_set(tiny: LocalModel) -> None:
    before = tiny.weights
    with pytest.raises(SettingsError, match=r"the weights of tiny-llama .*model\.editing\(\).*evenhand\.wrap\("):
        tiny.weights = before
    with pytest.raises(SettingsError, match=rf"those of {tiny.name}, the model below the method.* apply the method to"):
        Around().apply(tiny).weights = before


SETTABLE = sorted(
    {name for name in Model.__annotations__ if not callable(vars(Model).get(name))} - {"name", "methods", "weights"}
)


@pytest.mark.parametrize("name", SETTABLE)
def test_what_follows_from_the_base_cannot_be_set_on_a_stack(name: str) -> None:
    base = Telling()
    stack = Stack((Around(), Around())).apply(base)
    before = getattr(base, name)
    with pytest.raises(SettingsError) as caught:
        setattr(stack, name, None)
    message = str(caught.value)
    assert message.startswith(f"{name} of minimal+around+around follows from minimal, the model below the methods")
    assert f"apply the methods to a model with another {name}" in message
    as_option = f"evenhand.load('org/telling', {name}=...)" in message
    assert as_option == (name in ("answer_by", "sampling", "too_long", "thinking_tokens"))
    assert getattr(stack, name) == getattr(base, name) == before


def test_a_stack_lists_its_methods_from_the_inside() -> None:
    stack = Stack((Around(), Needy())).apply(Telling(), TrainData())
    assert Minimal().methods == () and stack.methods == ("around", "needy")


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
class Picky(Around):
    """Of the present release, with reasons of its own, as the methods that evenhand ships."""

    name: ClassVar[str] = "picky"

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        if reason := super().unsupported_reason(model, data):
            return reason
        if model is not None and model.source is None:
            return "picky needs a source"
        return "picky needs texts" if data is None or not data.texts else ""


@settings
class OldPicky(Picky):
    """Written for the previous release, when `Picky` had `missing` and `untrained`."""

    name: ClassVar[str] = "old_picky"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})

    def missing(self, model: Model) -> str:
        base = super().missing(model)
        return f"and so: {base}" if base else "no telling" if model.name == "telling" else ""

    def untrained(self, data: TrainData | None) -> str:
        base = super().untrained(data)
        return f"and so: {base}" if base else "too few texts" if len(data.texts) < 2 else ""  # type: ignore[union-attr]


@settings
class OlderPicky(OldPicky):
    """Overrides once more."""

    name: ClassVar[str] = "older_picky"

    def missing(self, model: Model) -> str:
        return super().missing(model) or "never"


@pytest.mark.filterwarnings("ignore:method Old:DeprecationWarning")
def test_an_override_of_an_old_name_is_told_what_its_base_says() -> None:
    method, few, many = OldPicky(), TrainData(texts=("x",)), TrainData(texts=("x", "y"))
    homeless, named = Telling(), Telling()
    homeless.source, named.name = None, "telling"
    assert method.unsupported_reason(Minimal(), many) == "and so: old_picky needs weights; minimal has "
    assert method.unsupported_reason(homeless, many) == "and so: picky needs a source"
    assert method.unsupported_reason(named, many) == "no telling"
    assert method.unsupported_reason(Telling()) == method.unsupported_reason(None) == "and so: picky needs texts"
    assert method.unsupported_reason(Telling(), few) == "too few texts"
    assert method.unsupported_reason(Telling(), many) == ""
    assert method.missing(homeless) == "and so: picky needs a source" and method.missing(Telling()) == ""
    assert method.untrained(None) == "and so: picky needs texts" and method.untrained(many) == ""
    assert OlderPicky().unsupported_reason(homeless, many) == "and so: picky needs a source"
    assert OlderPicky().unsupported_reason(Telling(), many) == "never"


def test_an_override_of_an_old_name_of_a_shipped_method_is_told_what_it_says() -> None:
    from evenhand.methods.unlearning.pcgu import PCGU

    class Mine(PCGU):
        name: ClassVar[str] = "mine"

        def missing(self, model: Model) -> str:
            return super().missing(model)

        def untrained(self, data: TrainData | None) -> str:
            return super().untrained(data)

    assert "weights" in Mine().missing(Minimal())
    assert Mine().untrained(TrainData()) == Mine().untrained(None)
    assert "needs pairs of texts" in Mine().untrained(None)


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
ANSWERED = {"unit", "item", "answer", "reply", "choice", "given", "talk", "a"}
"""Names of items and answers: their fields are looked up by what the dataclass lists, never by a name written out."""


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
        or (
            _last_name(node.args[0]) in ANSWERED
            and isinstance(node.args[1], ast.Constant)
            and node.args[1].value != "_fields"
        )
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
        Reading("generation"),
        "generation",
        Sampling(temperature=0.5),
    )
