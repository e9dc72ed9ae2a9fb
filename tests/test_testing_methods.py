"""`check_method` catches what makes a method's numbers wrong, one deliberately wrong method for each fault."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from evenhand.core import registry
from evenhand.core.hashing import digest
from evenhand.interfaces import Choice, Dialogue, Method, Model, Question, Reply, Sampling, TrainData, settings
from evenhand.models import Mitigated, load, wrap
from evenhand.testing import NonconformingError, check_method, tiny_model
from evenhand.testing.answer_checks import asked, random_state
from evenhand.testing.variants import variants


def leaning(choices: Sequence[Choice], weight: float) -> list[Choice]:
    """The choices, with some probability moved to the first option."""
    out = []
    for c in choices:
        moved = [(1 - weight) * p for p in c.probabilities or ()]
        moved[0] += weight
        out.append(Choice(int(np.argmax(moved)), tuple(moved)))
    return out


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers a method for one test."""
    monkeypatch.setattr(registry.methods, "_objects", dict(registry.methods._objects))
    return registry.methods.register


def refused(method: Method, said: str, **given: Any) -> None:
    with pytest.raises(NonconformingError) as raised:
        check_method(method, **given)
    assert said in str(raised.value), raised.value


# ---------------------------------------------------------------------------------------------- the fingerprint


@settings
class Unnamed(Method):
    """Leaves its weight out of what it gives as its settings to the wrapper."""

    name: ClassVar[str] = "toy_unnamed"
    weight: float = 0.25
    told: bool = False

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        given = self if self.told else Unnamed()
        return Mitigated(model, given, choose=lambda questions: leaning(model.choose(questions), self.weight))


def test_a_setting_that_is_missing_from_the_fingerprint_is_named() -> None:
    refused(Unnamed(), "weight=0.125 changed the answers but not the fingerprint")
    check_method(Unnamed(told=True))


def test_settings_of_a_trained_method_are_compared_where_instances_are_given() -> None:
    data = TrainData(texts=("a dog",))
    check_method(Unnamed(), data=data)
    refused(Unnamed(), "weight=0.75 changed the answers", data=data, others=[Unnamed(weight=0.75)])


@settings
class Nameless(Method):
    """Has the fingerprint of the model below it."""

    name: ClassVar[str] = "toy_nameless"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        class Same(Mitigated):
            @property
            def fingerprint(self) -> str:
                return self.base.fingerprint

        return Same(model, self, choose=lambda questions: leaning(model.choose(questions), 0.5))


def test_a_method_under_the_fingerprint_of_its_model_is_refused() -> None:
    refused(Nameless(), "toy_nameless answers differently from tiny-llama under the same fingerprint")


@settings
class Many(Method):
    """Settings of all types."""

    name: ClassVar[str] = "toy_many"
    flag: bool = True
    count: int = 0
    rate: float = 0.5
    place: Literal["before", "after"] = "before"
    text: str = "one"
    limit: int | None = None
    name_of: str | None = None
    words: tuple[str, ...] = ("a",)
    nothing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rate not in (0.5, 1.0):
            raise ValueError("rate")

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return model


def test_variants_differ_in_one_setting_each() -> None:
    found = variants(Many())
    assert found == [
        Many(flag=False),
        Many(count=1),
        Many(rate=1.0),
        Many(place="after"),
        Many(text="one again"),
        Many(limit=1),
        Many(name_of="a text"),
        Many(words=()),
        Many(words=("a", "a")),
        Many(nothing=("a text",)),
    ], "a half of 0.5 is refused, so the next is tried; of a tuple both are, as either may mean the same"


@settings
class Unheard(Method):
    """Has settings of which its fingerprint says nothing."""

    name: ClassVar[str] = "toy_unheard"
    words: tuple[str, ...] = ("a", "b")
    counted: Literal["all", "different"] = "all"
    word: str | None = None
    told: bool = False

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        if not self.words:
            raise ValueError("no words")
        words = self.words if self.counted == "all" else set(self.words)
        weight = (len(words) + len(self.word or "")) / 40
        given = self if self.told else Unheard(counted=self.counted)
        return Mitigated(model, given, choose=lambda questions: leaning(model.choose(questions), weight))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Unheard(), "words=['a'] changed the answers but not the fingerprint"),
        (Unheard(words=("a",)), "words=['a', 'a'] changed the answers but not the fingerprint"),
        (Unheard(counted="different"), "words=['a'] changed the answers but not the fingerprint"),
        (Unheard(words=("a",), counted="different"), "word='a text' changed the answers but not the fingerprint"),
    ],
    ids=["shorter", "longer where shorter fails", "shorter where longer means the same", "text instead of None"],
)
def test_a_list_or_text_that_is_missing_from_the_fingerprint_is_named(method: Method, said: str) -> None:
    refused(method, said)
    check_method(replace(method, told=True))  # type: ignore[type-var]  # `settings` has made it a dataclass


# ---------------------------------------------------------------------------------------------- batches


@settings
class Batched(Method):
    """Lets answers depend on the others of the call."""

    name: ClassVar[str] = "toy_batched"
    by: Literal["place", "size"] = "place"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Sequence[Question]) -> list[Choice]:
            choices = model.choose(questions)
            weights = [n / 10 if self.by == "place" else len(choices) / 10 for n in range(len(choices))]
            return [leaning([c], w)[0] for c, w in zip(choices, weights, strict=True)]

        return Mitigated(model, self, choose=choose)


@pytest.mark.parametrize(("by", "how"), [("place", "asked in another order"), ("size", "asked alone")])
def test_an_answer_that_depends_on_its_batch_is_named(by: Literal["place", "size"], how: str) -> None:
    refused(Batched(by=by), f"choose() answered number 0 of 5 differently when it was {how}")
    check_method(Batched(by=by), batch_dependent=True)


@settings
class Neighbourly(Method):
    """Takes the text of the first question for all, or gives replies in the wrong order."""

    name: ClassVar[str] = "toy_neighbourly"
    wrong: Literal["first", "reversed", ""] = ""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Sequence[Question]) -> list[Choice]:
            if self.wrong != "first":
                return model.choose(questions)
            return model.choose([replace(q, question=questions[0].question) for q in questions])

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            return model.generate(dialogues[::-1] if self.wrong == "reversed" else dialogues, sampling)

        return Mitigated(model, self, choose=choose, generate=generate)


def test_the_text_of_another_question_and_replies_in_another_order_are_noticed() -> None:
    refused(Neighbourly(wrong="first"), "choose() answered number 0 of 5 differently when it was asked in another")
    refused(Neighbourly(wrong="reversed"), "generate() answered number 0 of 2 differently when it was asked alone")
    check_method(Neighbourly())


def test_what_is_asked_tells_its_questions_and_dialogues_apart() -> None:
    things = asked()
    assert len({q.question for q in things["choose"]}) == len(things["choose"]) == 5
    for model in (tiny_model(), tiny_model(source="demo")):
        one, other = model.generate(things["generate"], Sampling(max_new_tokens=4))
        assert one.text != other.text


# ---------------------------------------------------------------------------------------------- saving


@settings
class Learner(Method):
    """Learns a weight from texts, and keeps it or not."""

    name: ClassVar[str] = "toy_learner"
    keeps: Literal["all", "nothing", "without restore", "half", "other hash"] = "all"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return self._leaning(model, len(data.texts) / 10 if data else 0.0)

    def restore(self, model: Model, folder: Path) -> Model:
        if self.keeps == "without restore":
            return super().restore(model, folder)
        weight = float((folder / "weight.txt").read_text())
        return self._leaning(model, weight / 2 if self.keeps == "half" else weight, opened=True)

    def _leaning(self, model: Model, weight: float, opened: bool = False) -> Model:
        def keep(folder: Path) -> None:
            (folder / "weight.txt").write_text(str(weight))

        return Mitigated(
            model,
            self,
            choose=lambda questions: leaning(model.choose(questions), weight),
            depends_on=[digest(weight), *(["opened"] if opened and self.keeps == "other hash" else [])],
            keep=None if self.keeps == "nothing" else keep,
        )


@pytest.mark.parametrize(
    ("keeps", "said"),
    [
        ("nothing", "saving and loading changed its answers"),
        ("half", "saving and loading changed its answers"),
        ("without restore", "saved, it cannot be loaded again (NotImplementedError: toy_learner saves nothing"),
        ("other hash", "saving and loading changed what its fingerprint is made of"),
    ],
)
def test_a_save_that_cannot_be_restored_is_refused(keeps: Any, said: str, registered: Any) -> None:
    registered(Learner)
    refused(Learner(keeps=keeps), said, data=TrainData(texts=("a dog",) * 4))


def test_what_is_kept_whole_is_accepted(registered: Any) -> None:
    registered(Learner)
    check_method(Learner(), data=TrainData(texts=("a dog",) * 4))


@settings
class Halved(Method):
    """Halves the weights of a copy; may write others than it asks, or draw them."""

    name: ClassVar[str] = "toy_halved"
    wrong: str = ""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        module, tokenizer = model.weights
        made = wrap(copy.deepcopy(module), tokenizer, name=f"{model.name}+{self.spec}")
        with made.editing() as weights, torch.no_grad():
            embedding = weights.module.get_input_embeddings().weight
            embedding.mul_(torch.rand_like(embedding) if self.wrong == "random" else 0.5)
        if self.wrong == "save":
            vars(made)["save"] = model.save
        return made


def test_edited_weights_are_saved_and_loaded_though_the_method_is_not_registered() -> None:
    check_method(Halved())
    refused(Halved(wrong="save"), "saving and loading changed its answers")


# ---------------------------------------------------------------------------------------------- the model below


@settings
class Meddler(Method):
    """Changes how the model that it was given answers, but not its weights."""

    name: ClassVar[str] = "toy_meddler"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        model.answer_by = "text"
        return Mitigated(model, self)


@settings
class Editor(Method):
    """Halves the weights of the model that it was given."""

    name: ClassVar[str] = "toy_editor"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        with model.editing() as weights, torch.no_grad():
            weights.module.get_input_embeddings().weight.mul_(0.5)
        return Mitigated(model, self)


@pytest.mark.parametrize(
    ("method", "what"), [(Meddler(), "it answers differently now"), (Editor(), "its fingerprint has changed")]
)
def test_a_method_that_changes_its_model_is_refused_with_the_remedy(method: Method, what: str) -> None:
    refused(method, f"apply() or an answer changed the model that it was given: {what}")
    refused(method, "evenhand.wrap(copy.deepcopy(model.weights.module)")


# ---------------------------------------------------------------------------------------------- randomness


def _by_time(generator: str) -> float:
    return {
        "python": lambda: random.random(),
        "numpy": lambda: float(np.random.random()),
        "torch": lambda: float(torch.rand(())),
        "system": lambda: random.SystemRandom().random(),
    }[generator]()


@settings
class Dice(Method):
    """Draws from a global generator, when it is applied or when it is asked."""

    name: ClassVar[str] = "toy_dice"
    generator: str = "python"
    when: Literal["applied", "asked"] = "applied"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        drawn = _by_time(self.generator)

        def choose(questions: Sequence[Question]) -> list[Choice]:
            weight = drawn if self.when == "applied" else _by_time(self.generator)
            return leaning(model.choose(questions), weight)

        return Mitigated(model, self, choose=choose)


@settings
class Seeded(Method):
    """Draws by its seed, or forgets it."""

    name: ClassVar[str] = "toy_seeded"
    seed: int = 0
    forgets: bool = False

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        drawn = random.random() if self.forgets else random.Random(self.seed).random()
        return Mitigated(model, self, choose=lambda questions: leaning(model.choose(questions), drawn))


@pytest.mark.parametrize("when", ["applied", "asked"])
@pytest.mark.parametrize("generator", ["python", "numpy", "torch", "system"])
def test_randomness_without_a_seed_is_refused(generator: str, when: Literal["applied", "asked"]) -> None:
    refused(Dice(generator=generator, when=when), "give it a setting `seed: int = 0`")
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    refused(Dice(generator=generator, when=when), "so it draws at random without a seed")


def test_a_seed_that_is_there_is_to_be_used() -> None:
    check_method(Seeded())
    refused(Seeded(forgets=True), "draw from random.Random(self.seed)")
    refused(Halved(wrong="random"), "so it draws at random without a seed")


def test_global_generators_are_left_as_they_were() -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with random_state(5):
        drawn = random.random(), np.random.random(), float(torch.rand(()))
    with random_state(5):
        assert drawn == (random.random(), np.random.random(), float(torch.rand(())))
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all() and torch.equal(torch.get_rng_state(), before[2])


# ---------------------------------------------------------------------------------------------- what is right


def test_a_wrapper_around_questions_passes_on_a_model_from_files(tmp_path: Path) -> None:
    @settings
    class Capitals(Method):
        """Puts every question in capitals."""

        name: ClassVar[str] = "toy_capitals"

        def apply(self, model: Model, data: TrainData | None = None) -> Model:
            def choose(questions: Sequence[Question]) -> list[Choice]:
                return model.choose([replace(q, question=q.question.upper()) for q in questions])

            return Mitigated(model, self, choose=choose)

    check_method(Capitals(), load(tiny_model().save(tmp_path)))
