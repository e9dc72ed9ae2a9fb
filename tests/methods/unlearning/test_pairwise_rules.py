"""`pairwise`: where training stops, what is trained next, and expected rewards, on scripts and tabular models."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenhand.errors import SettingsError
from evenhand.interfaces import Question
from evenhand.methods.unlearning._pairwise import losses
from evenhand.methods.unlearning._pairwise.letters import option_logprobs
from evenhand.methods.unlearning._pairwise.parity import (
    ALL,
    PairScore,
    Turn,
    by_axis,
    columns,
    distance,
    next_turn,
)
from evenhand.methods.unlearning._pairwise.reading import (
    Lesson,
    Rewarded,
    Row,
    adversarial,
    read_questions,
    stream,
)
from evenhand.methods.unlearning._pairwise.rewards import expected_reward_loss, is_unknown, rewards_of
from evenhand.methods.unlearning._pairwise.run import NEAREST, Run
from evenhand.methods.unlearning._pairwise.steps import Sizes, step
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.models.tokenization import Encoder
from evenhand.training.loop import Schedule, Training

# ------------------------------------------------------------------------------------------- a model of two tokens


class TwoTokens(nn.Module):
    """P(rejected) = .8 and P(chosen) = .2, after any prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([math.log(0.2), math.log(0.8)]))

    def nll(self) -> tuple[Tensor, Tensor]:
        found = -torch.log_softmax(self.logits, dim=0)
        return found[:1], found[1:]

    @property
    def rejected(self) -> float:
        return float(torch.softmax(self.logits.detach(), dim=0)[1])

    def loss(self, name: str) -> Tensor:
        one = torch.ones(1)
        chosen, rejected = self.nll()
        if name == "gap":
            return losses.gap(chosen, one, rejected, one).mean()
        before = -torch.log(torch.tensor([0.2])), -torch.log(torch.tensor([0.8]))
        return losses.dpo(chosen, rejected, *before, 0.1).mean()


def learned(name: str, steps: int) -> float:
    model = TwoTokens()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(name).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.rejected


def test_gap_ends_at_one_half_and_dpo_passes_it() -> None:
    assert learned("gap", 1000) == pytest.approx(0.5, abs=1e-3)
    assert learned("dpo", 1000) < 0.1


@pytest.mark.parametrize("stops", [True, False])
def test_the_stop_at_parity_halts_within_two_points(stops: bool, tmp_path: Any) -> None:
    model = TwoTokens()

    def evaluate(network: Any) -> Mapping[str, float]:
        chosen, rejected = network.nll()
        found = columns([PairScore(float(chosen), float(rejected), 1, 1, "x")], "probability")
        return {**found, NEAREST: abs(found[ALL])}

    made = Training(
        module=model,
        batches=lambda _, __: [None] * 5,
        loss=lambda network, _: network.loss("dpo"),
        evaluate=evaluate,
        watched=NEAREST if stops else "",
        stop=(lambda curve: curve[-1][NEAREST] < 2.0) if stops else None,
        schedule=Schedule(epochs=200, learning_rate=0.01, patience=0, device="cpu", precision="no", weight_decay=0),
        folder=tmp_path if stops else None,
    ).run()
    assert abs(made.curve[0][ALL] - 30) < 3
    if stops:
        assert abs(model.rejected - 0.5) < 0.02 and len(made.curve) < 100 and made.best == len(made.curve) - 1
    else:
        assert model.rejected < 0.1 and len(made.curve) == 200 and made.best == 199


# ------------------------------------------------------------------------------------------------ distances and turns


def pair(chosen: float, rejected: float, axis: str = "x", lengths: tuple[int, int] = (1, 1)) -> PairScore:
    return PairScore(chosen, rejected, *lengths, axis)


def test_distances_are_signed_points_from_one_half() -> None:
    likes = pair(-math.log(0.2), -math.log(0.8))
    assert distance([likes], "probability") == pytest.approx(30)
    assert distance([pair(-math.log(0.8), -math.log(0.2))], "probability") == pytest.approx(-30)
    assert distance([likes, likes, pair(1, 2), pair(1, 1)], "stereotype_score") == pytest.approx(12.5)
    assert distance([pair(4, 3, lengths=(4, 2))], "stereotype_score") == -50  # per token 1 against 1.5
    assert distance([pair(9000, 1)], "probability") == 50 and distance([pair(1, 9000)], "probability") == -50
    found = columns([pair(5, 5, "b"), likes._replace(axis="a")], "probability")
    assert list(found) == [ALL, f"{ALL}.a", f"{ALL}.b"] and found[ALL] == pytest.approx(15)
    assert by_axis(found) == pytest.approx({"a": 30, "b": 0})


def scripted(*scores: float) -> list[Turn | None]:
    """What the run trains after each validation score of one axis."""
    run = Run.__new__(Run)
    run.plan = type("Swapping", (), {"stop_at_parity": True, "swap": True, "tolerance": 2.0})()  # type: ignore[assignment]
    run.lesson = Lesson([Row((1,), (2,), (3,), "Age")], [], {})
    curve: list[dict[str, float]] = []
    turns = []
    for score in scores:
        curve.append({ALL: score - 50, f"{ALL}.Age": score - 50})
        assert run.finished(curve) is (run.turn is None)
        turns.append(run.turn)
    return turns


def test_the_sides_change_places_below_one_half() -> None:
    forget, swapped = Turn("Age", False), Turn("Age", True)
    assert scripted(60, 55, 47, 53) == [forget, forget, swapped, forget]
    assert scripted(47, 51.9) == [swapped, None]


def test_the_axis_farthest_off_is_trained_until_all_are_near() -> None:
    assert next_turn({"a": 3.0, "b": -8.0, "c": 7.9}, 2.0) == Turn("b", True)
    assert next_turn({"a": 1.9, "b": -1.9}, 2.0) is None


# ------------------------------------------------------------------------------------------------------------ steps

ROWS = [Row((1, n), (2,), (3, 4), "ab"[n % 2]) for n in range(10)]


def test_every_pass_has_every_row_once_and_axes_have_streams_of_their_own() -> None:
    assert sorted(stream(10, 0, 10, "s")) == sorted(stream(10, 10, 10, "s")) == list(range(10))
    assert stream(10, 0, 10, "s") != stream(10, 10, 10, "s")
    assert stream(10, 0, 25, "s")[8:14] == stream(10, 8, 6, "s")
    parts = step(3, Lesson(ROWS, [], {}), Sizes(4, 0, 0, 2), Turn("b", True), frozenset(), 0)
    assert [len(part.pairs) for part in parts] == [2, 2] and all(part.swapped for part in parts)
    assert {ROWS[n].axis for part in parts for n in part.pairs} == {"b"}
    assert parts[0].totals == parts[1].totals
    assert (parts[0].totals.chosen_tokens, parts[0].totals.rejected_tokens) == (8, 4)  # the sides are exchanged


def test_texts_change_no_draw_of_pairs() -> None:
    sizes, turn = Sizes(4, 0, 0), Turn()
    plain = step(1, Lesson(ROWS, [], {}), sizes, turn, frozenset(), 0)
    more = step(1, Lesson(ROWS, [], {}, [(1, 2), (3, 4)]), sizes._replace(texts=3), turn, frozenset(), 0)
    assert plain[0].pairs == more[0].pairs and more[0].texts and not plain[0].texts


def test_a_quarter_of_the_chosen_sides_is_forgotten_too() -> None:
    drawn = adversarial(ROWS * 2, 0.25, 0)
    assert len(drawn) == 5 and drawn == adversarial(ROWS * 2, 0.25, 0) != adversarial(ROWS * 2, 0.25, 1)
    (part,) = step(0, Lesson(ROWS, [], {}), Sizes(10, 0, 0), Turn(), frozenset({0, 7}), 0)
    assert part.totals.forgotten == 12


# ---------------------------------------------------------------------------------------------------------- rewards

AMBIGUOUS = Question("a", "who was late?", ("the nurse", "the doctor", "Not known"), context="both were there .")
CLEAR = Question(
    "c", "who was late?", ("Can't be determined", "the nurse", "the doctor"), context="the nurse was late ."
)


def test_rewards_by_rule() -> None:
    assert rewards_of(AMBIGUOUS, 2) == (-1.0, -1.0, 1.0)  # counter-biased answers are wrong, too
    assert rewards_of(CLEAR, 1) == (-0.5, 1.0, -1.0)
    assert is_unknown(" cannot be determined.") and not is_unknown("the unknown man")


def test_the_gradient_is_that_of_sampled_answers() -> None:
    """Exact against 20,000 samples of REINFORCE, within three standard errors of each coordinate."""
    torch.manual_seed(0)
    logits = torch.tensor([[0.4, -0.3, 1.1]], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([[1.0, -1.0, -0.5]], dtype=torch.float64)
    (exact,) = torch.autograd.grad(expected_reward_loss(torch.log_softmax(logits, -1), rewards).sum(), logits)
    p = torch.softmax(logits.detach()[0], 0)
    drawn = torch.multinomial(p, 20_000, replacement=True)
    each = -rewards[0, drawn, None] * (torch.eye(3, dtype=torch.float64)[drawn] - p)
    error = each.std(dim=0) / math.sqrt(20_000)
    assert bool(((each.mean(dim=0) - exact[0]).abs() < 3 * error).all())
    assert float(exact.abs().min()) > 5 * float(error.max())  # and it is not within the noise of 0


def test_equal_rewards_teach_nothing() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = expected_reward_loss(torch.log_softmax(logits, -1), torch.full((4, 3), -1.0, dtype=torch.float64))
    assert loss.tolist() == pytest.approx([1.0] * 4)
    assert float(torch.autograd.grad(loss.sum(), logits)[0].abs().max()) < 1e-15


def test_the_divergence_from_the_reference() -> None:
    logprobs = torch.log(torch.tensor([[0.5, 0.5, 0.0]]))
    reference = torch.log(torch.tensor([[0.25, 0.75, 0.0]]))
    found = expected_reward_loss(logprobs, torch.zeros(1, 3), reference, 0.04)
    assert float(found) == pytest.approx(0.04 * (0.5 * math.log(2) + 0.5 * math.log(2 / 3)))
    assert float(expected_reward_loss(reference, torch.zeros(1, 3), reference, 0.04)) == 0


@pytest.mark.parametrize("always", [True, False])
def test_rewarding_unknown_everywhere_raises_abstention_where_a_person_is_right(always: bool) -> None:
    """The hack that the reward of -.5 and both kinds of contexts are against."""
    logits = nn.Parameter(torch.zeros(3))
    by_rule = rewards_of(CLEAR, 1)  # the first option is "unknown"
    rewards = torch.tensor([(1.0, *by_rule[1:]) if always else by_rule])
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        expected_reward_loss(torch.log_softmax(logits, 0)[None], rewards).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    abstention = float(torch.softmax(logits.detach(), 0)[0])
    assert abstention > 0.45 if always else abstention < 0.05  # from a third


def words() -> Any:
    text = f"{AMBIGUOUS.question} {AMBIGUOUS.context} {CLEAR.context} the nurse doctor Not known Can't be determined"
    return tiny_tokenizer([text, "A B C ( ) Answer the multiple choice question with a single letter."], chat=True)


def test_options_are_read_as_the_model_answers() -> None:
    tokenizer = words()
    model = LocalModel(tiny_module(len(tokenizer), scale=1.0), tokenizer, name="tiny")
    asked = [AMBIGUOUS, CLEAR, AMBIGUOUS.reordered((2, 0, 1))]
    with torch.no_grad():
        found = option_logprobs(model.weights.module, asked, Encoder(tokenizer)).exp()
    for row, choice in zip(found, model.choose(asked), strict=True):
        assert row.tolist() == pytest.approx(choice.probabilities, abs=1e-5)
    assert float((found[0] - found[2]).abs().max()) > 1e-4  # the order matters to this model, the identities stay


def test_both_kinds_of_contexts_are_in_every_batch_and_orders_are_drawn() -> None:
    rewarded = [Rewarded(AMBIGUOUS, (-1, -1, 1), True)] * 3 + [Rewarded(CLEAR, (-0.5, 1, -1), False)] * 20
    for number in range(3):
        (part,) = step(number, Lesson([], [], {}, (), rewarded), Sizes(0, 0, 8), Turn(), frozenset(), 0)
        assert sum(one.ambiguous for one in part.questions) == 4 and part.totals.questions == 8
    shown = {one.question.order for one in part.questions}
    assert len(shown) > 2 and all(sorted(order) == [0, 1, 2] for order in shown)


def test_questions_without_a_person_as_answer_are_refused() -> None:
    found = read_questions([AMBIGUOUS, CLEAR, CLEAR], [2, 1, None], words(), 99)
    assert [one.ambiguous for one in found] == [True, False]
    assert len(read_questions([AMBIGUOUS, CLEAR], [2, 1], words(), 3)) == 0
    with pytest.raises(SettingsError, match='always answering "unknown" would be learned'):
        read_questions([AMBIGUOUS] * 3, [2] * 3, words(), 99)
    with pytest.raises(SettingsError, match="1 answers for 2 questions"):
        read_questions([AMBIGUOUS, CLEAR], [2], words(), 99)


def test_a_stream_depends_on_its_name_alone() -> None:
    expected = list(range(5))
    Random("name/0").shuffle(expected)
    assert stream(5, 0, 5, "name") == expected


def test_settings_are_checked_without_loading_torch() -> None:
    imported = "import sys; from evenhand.methods.unlearning.pairwise import Pairwise"
    code = f"{imported}; Pairwise(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
