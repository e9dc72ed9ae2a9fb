"""`pairwise` at the limits of its data: odd steps, axes that lie on one side, texts and questions that are short."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import evenhand
from evenhand.core.registry import build_method
from evenhand.errors import SettingsError
from evenhand.interfaces import Pair, Question, TrainData
from evenhand.methods.unlearning._pairwise.parity import EVERYTHING
from evenhand.methods.unlearning._pairwise.reading import Lesson, Rewarded, Row
from evenhand.methods.unlearning._pairwise.steps import Sizes, step
from evenhand.methods.unlearning.pairwise import Pairwise
from evenhand.models.fingerprint import of_weights
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer

JOBS = ("nurse", "doctor", "pilot", "baker", "clerk", "guard")
STATES = ("late", "tired", "here", "sad")
PAIRS = tuple(
    Pair(f" he was {state}", f" she was {state}", f"the {job} said that", axis="ab"[n % 2], id=f"{job} {state}")
    for n, job in enumerate(JOBS)
    for state in STATES
)
QUICK = {"learning_rate": 1e-3, "batch_size": 4, "validation_fraction": 0.25, "rank": 2}


@pytest.fixture(scope="module")
def model() -> LocalModel:
    words = tiny_tokenizer([f"{p.prompt}{p.stereotyped}{p.counter_stereotyped}" for p in PAIRS], chat=False)  # type: ignore[arg-type]
    return LocalModel(tiny_module(len(words), scale=1.0), words, name="tiny")


def built(preset: str = "dpo", **given: object) -> Pairwise:
    return Pairwise.build(preset=preset, **{**QUICK, **given})  # type: ignore[no-any-return]


def test_no_more_steps_are_trained_than_were_asked_for(model: LocalModel) -> None:
    """5 steps with a check every 2 were 6."""
    short = built(stop="none", steps=5, check_steps=2).apply(model, TrainData(pairs=PAIRS)).training
    assert short is not None and short.steps == 5 and len(short.curve) == 1 + 3
    whole = built(stop="none", epochs=1, check_steps=3).apply(model, TrainData(pairs=PAIRS)).training
    assert whole is not None and whole.data is not None and whole.steps == -(-(whole.data.training or 0) // 4)


def rewarded(name: str, ambiguous: bool) -> Rewarded:
    return Rewarded(Question(name, "Who?", ("x one", "y two", "unknown")), (1.0, -1.0, -0.5), ambiguous)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_odd_steps_favour_no_kind_of_context(size: int) -> None:
    """With one question a step, all of them were ambiguous, so that abstaining was all that was learned."""
    every = [rewarded(f"{kind}{n}", kind) for kind in (True, False) for n in range(3)]
    lesson = Lesson([], [], {}, questions=every)
    steps = [step(n, lesson, Sizes(0, 0, size), EVERYTHING, frozenset(), 0)[0].questions for n in range(6)]
    drawn = [one for some in steps for one in some]
    assert [len(some) for some in steps] == [size] * 6
    assert sum(one.ambiguous for one in drawn) == len(drawn) / 2
    first = [one.question.id for one in drawn[:6]]
    assert len(set(first)) == 6 or size == 3  # each kind has every question once a pass


@pytest.mark.filterwarnings("ignore:pairwise. the model was:UserWarning")
def test_an_axis_with_validation_pairs_alone_is_neither_trained_on_nor_waited_for(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn ended in a division by zero."""
    row = Row((1,), (2,), (3,), "a")
    train = [row._replace(prompt=(n, 1)) for n in range(2, 10)]
    held = [row._replace(prompt=(3, 5)), row._replace(prompt=(4, 5), axis="b")]
    monkeypatch.setattr(Pairwise, "prepared", lambda self, model, data: Lesson(train, held, {}))
    method = built("npo", swap=True, steps=4, check_steps=1, tolerance=0.001, batch_size=2)
    record = method.apply(model, TrainData(pairs=PAIRS)).training
    assert record is not None and record.steps == 4
    assert all(line["farthest_axis"] == abs(line["parity_distance.a"] or 0) for line in record.curve)


def test_axes_that_cannot_be_swapped_are_named(model: LocalModel) -> None:
    lone = Pair(" he was late", " she was late", "the guard thought that", axis="c")
    data = TrainData(pairs=(*PAIRS, lone))
    with pytest.warns(UserWarning, match="trains no pairs about c, which are all in"):
        built("npo", swap=True).prepared(model, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built("npo").prepared(model, data)  # only swapping goes by axis
        built("npo", swap=True).prepared(model, TrainData(pairs=PAIRS))
    each = tuple(p._replace(axis=f"axis {n}") for n, p in enumerate(PAIRS))
    with pytest.raises(SettingsError, match="no axis has both training and validation pairs; add pairs"):
        built("npo", swap=True).prepared(model, TrainData(pairs=each))


def test_texts_of_which_none_can_be_learned_are_refused(model: LocalModel) -> None:
    """They were left out, and the weight of the retained texts had no effect."""
    with pytest.raises(SettingsError, match="none of the 2 texts has two tokens or more"):
        built(retain_kl_weight=1.0).prepared(model, TrainData(pairs=PAIRS, texts=("", "")))


def test_every_axis_that_is_asked_for_has_to_be_there(model: LocalModel) -> None:
    """A misspelt axis next to a known one was left out without a word."""
    with pytest.raises(SettingsError, match="no pairs about agee; the training data has: a, b"):
        built(axes=("a", "agee")).prepared(model, TrainData(pairs=PAIRS))
    rows = built(axes=("b", "a")).prepared(model, TrainData(pairs=PAIRS))
    assert len(rows.train) + len(rows.held) == len(PAIRS)


def test_a_training_that_only_led_away_from_parity_says_so(model: LocalModel) -> None:
    data = TrainData(pairs=PAIRS)
    started = built(stop="none", steps=1).apply(model, data).training
    assert started is not None and abs(started.curve[0]["parity_distance"] or 0) < 30
    far = built(stop="parity", tolerance=0.001, learning_rate=0.3, steps=8, check_steps=8, warmup_ratio=0.0)
    with pytest.warns(UserWarning, match="points from parity on the validation pairs, and is at least .* set a lower"):
        far.apply(model, data)


def test_an_end_of_the_data_that_cannot_be_used_is_named(model: LocalModel) -> None:
    same = Pair(" he was late", " he was late", "the nurse said that", id="same")
    long = Pair(" he was late" * 40, " she was late" * 40, "the nurse said that", id="long")
    bare = Pair("", " she was sad", "the nurse said that", id="bare")
    with pytest.warns(UserWarning, match=r"of 27 pairs, .* not used: .*such as same"):
        lesson = built(max_length=64).prepared(model, TrainData(pairs=(*PAIRS, same, long, bare)))
    assert lesson.left_out["the same tokens on both sides"] == 1 and lesson.left_out["more than 64 tokens"] == 1
    with pytest.raises(SettingsError, match="needs at least 20 different pairs"):
        built().prepared(model, TrainData(pairs=PAIRS[:1]))


def test_presets_survive_a_round_trip_through_their_names(model: LocalModel, tmp_path: Path) -> None:
    for preset in Pairwise.presets:
        method = build_method(f"pairwise(preset={preset})")
        assert build_method(method.spec) == method
    made = built(steps=2, check_steps=1).apply(model, TrainData(pairs=PAIRS))
    again = evenhand.load(made.save(tmp_path / "saved"))
    assert of_weights(*again.weights) == of_weights(*made.weights)
