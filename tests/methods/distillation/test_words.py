"""Words of several tokens in the training: where texts begin them, and what the student is taught there."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evenhand.methods.distillation._batches import Text, batches
from evenhand.methods.distillation._fair import FairRule
from evenhand.methods.distillation._losses import Loss, Shares
from evenhand.methods.distillation._states import States
from evenhand.methods.distillation._words import NOWHERE, WordRule
from evenhand.methods.distillation.rules import SequenceClass, TokenClass, TokenRules, project_tree
from evenhand.models.tiny import tiny_module
from evenhand.training.packing import IGNORED, KINDS, Layout

GROUPS = ("a", "b")
HE, XE = (5,), (7, 9)
APART = SequenceClass("apart", GROUPS, ((HE,), (XE,)))
WORDS = 12


def rules(*sequences: SequenceClass, singles: tuple[TokenClass, ...] = ()) -> TokenRules:
    return TokenRules("test", "", False, singles, sequences)


def word_rule(*sequences: SequenceClass, **more: Any) -> WordRule:
    return WordRule(rules(*sequences or (APART,)), **{"mode": "arithmetic", "strength": 1.0, **more})


def text(*ids: int, open: bool = True) -> Text:
    return Text([*ids], [*ids[1:], IGNORED], [open] * len(ids))


# ------------------------------------------------------------------------------------------------ in texts


def test_a_text_that_spells_a_word_has_its_places_and_branches_have_the_others() -> None:
    """Beginnings are () and (7,): behind "1 2" the text says 7 9, so both are its own places."""
    (found,) = word_rule().marked([text(1, 2, 7, 9, 3)])
    assert found.spots == [NOWHERE, 0, 1, NOWHERE, NOWHERE]
    own, branch = word_rule().marked([text(1, 2, 5, 3)])
    assert own.spots == [NOWHERE, 0, NOWHERE, NOWHERE]
    assert branch.ids[:3] == [1, 2, 7] and branch.spots is not None and branch.spots[2] == 1
    assert branch.read == [False, False, True, False]
    assert set(branch.labels) == {IGNORED}


def test_the_last_token_of_a_text_predicts_nothing_so_its_place_is_read_in_a_branch() -> None:
    nested = SequenceClass("nested", GROUPS, (((6,),), ((6, 4),)))
    own, branch = word_rule(nested).marked([text(1, 6)])
    assert own.spots == [0, NOWHERE]
    assert branch.ids[:2] == [1, 6] and branch.spots == [NOWHERE, 1, NOWHERE]


@pytest.mark.parametrize(
    "ids",
    [
        (1, 2, 3, 4),  # no word
        (1, 7, 3, 4),  # a beginning that leads to none
        (1, 2, 7),  # one that the text ends in
    ],
)
def test_texts_without_a_word_stay_as_they_are(ids: tuple[int, ...]) -> None:
    assert word_rule().marked([text(*ids)]) == [text(*ids)]


def test_closed_places_and_words_that_single_tokens_do_for_are_left_to_them() -> None:
    assert word_rule().marked([text(1, 2, 5, 3, open=False)]) == [text(1, 2, 5, 3, open=False)]
    him, her, pair = 2, 3, TokenClass("object", GROUPS, ((2,), (3,)))
    other = TokenClass("subject", GROUPS, ((10,), (11,)))
    reflexive = SequenceClass("reflexive", GROUPS, (((him, 8),), ((her, 8),)))
    made = WordRule(rules(reflexive, singles=(pair, other)), mode="arithmetic", strength=1.0)
    assert made.marked([text(1, 10, 4)]) == [text(1, 10, 4)]
    own, branch = made.marked([text(1, him, 4)])  # "him" begins "himself"
    assert own.spots is not None and own.spots[0] == 0
    assert branch.ids[:2] == [1, her]


def test_equal_beginnings_of_texts_are_read_once_and_different_words_apart() -> None:
    made = word_rule()
    made.marked([text(1, 2, 5, 3), text(1, 2, 5, 4), text(1, 2, 7, 9), text(1, 3, 5, 4)])
    assert made.starts == 3


@pytest.mark.parametrize("kind", KINDS)
def test_packing_moves_spots_with_their_tokens_and_reads_only_the_end_of_a_branch(kind: Any) -> None:
    texts = word_rule().marked([text(1, 2, 5, 3), text(1, 4, 7, 9, 3, 2)])
    for tokens in (1, 9, 100):
        found = [
            (int(b.inputs["input_ids"][r, c]), int(b.labels[r, c]), int(b.spots[r, c]))
            for b in batches(texts, Layout(kind), tokens, 0, Random(0))
            if b.spots is not None
            for r, c in torch.nonzero(b.read).tolist()
        ]
        plain = [(1, 2, -1), (5, 3, -1), (1, 4, -1), (9, 3, -1), (3, 2, -1)]
        marked = [(2, 5, 0), (7, IGNORED, 1), (4, 7, 2), (7, 9, 3)]
        assert sorted(found) == sorted(plain + marked)


# ----------------------------------------------------------------------------------------- what is learned


def taught(made: WordRule, steps: dict[tuple[int, int], float], starts: int = 1) -> None:
    """Put hand-made probabilities in the place of a teacher's."""
    from evenhand.methods.distillation.rules.sequences import redistributed

    logs = torch.tensor([[steps[e.prefix, e.token] for e in made.tree.edges]] * starts, dtype=torch.float64).log()
    made.targets = redistributed(logs, made.tree, mode=made.mode, strength=made.strength, prior=made.prior)
    made._softened = made._softened_labels(made.targets.words)


def test_the_teachers_words_are_those_of_its_passes_over_text_and_beginning() -> None:
    module = tiny_module(WORDS)
    for layout in map(Layout, KINDS):
        made = word_rule()
        texts = made.marked([text(1, 2, 5, 3), text(1, 4, 7, 9, 3, 2)])
        made.read(module, texts, layout, 0, 6)
        assert made.targets is not None
        for start, before in enumerate([[1, 2], [1, 4]]):
            with torch.no_grad():
                asked = (torch.tensor([ids]) for ids in (before, [*before, 7]))
                root, behind = (module(input_ids=ids).logits[0, -1].log_softmax(-1) for ids in asked)
            wanted = [float(root[5]), float(root[7] + behind[9])]
            assert made.targets.words[start].tolist() == pytest.approx(wanted, abs=1e-4)


def table(rows: Tensor) -> nn.Linear:
    head = nn.Linear(len(rows), rows.shape[1], bias=False, dtype=rows.dtype)
    head.weight.data = rows.T.contiguous()
    return head


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_tabular_student_says_whole_words_alike_whatever_the_temperature(temperature: float) -> None:
    """Contexts are the text so far, and 7 behind it. The teacher says he .3 and xe .1 x .6 = .06: .18 each."""
    p = torch.full((2, WORDS), 0.0, dtype=torch.float64)
    p[0, :], p[1, :] = 0.6 / (WORDS - 2), 0.4 / (WORDS - 1)
    p[0, 5], p[0, 7], p[1, 9] = 0.3, 0.1, 0.6
    rule = FairRule(rules(APART), mode="arithmetic", strength=1.0, emphasis=3.0)
    assert rule.words is not None
    rule.words.marked([text(1, 7, 9)])
    taught(rule.words, {(0, 5): 0.3, (0, 7): 0.1, (1, 9): 0.6})
    each, head = States(torch.eye(2, dtype=torch.float64), torch.zeros(0)), table(torch.zeros_like(p))
    loss = Loss(shares=Shares(kl=5, hard=0, temperature=temperature), rule=rule)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss.of(
            each,
            head,
            each,
            table(p.log()),
            torch.tensor([IGNORED] * 2),
            torch.tensor([True] * 2),
            torch.tensor([0, 1]),
        )
        torch.autograd.backward(value)
        assert head.weight.grad is not None
        head.weight.grad = head.weight.grad.contiguous()
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    made = torch.softmax(head.weight.T, dim=-1).detach()
    assert float(made[0, 5]) == pytest.approx(0.18, abs=1e-4)
    assert float(made[0, 7] * made[1, 9]) == pytest.approx(0.18, abs=1e-4)
    wanted = project_tree(p.log(), rule.words.tree).exp()
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)


def test_where_no_spot_is_the_rule_on_single_tokens_acts_as_without_sequences() -> None:
    pair = TokenClass("subject", GROUPS, ((10,), (11,)))
    both, alone = (
        FairRule(found, mode="arithmetic", strength=1.0, emphasis=2.0)
        for found in (rules(APART, singles=(pair,)), rules(singles=(pair,)))
    )
    raw = torch.randn(2, WORDS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each, zeros = States(torch.eye(2, dtype=torch.float64), torch.zeros(0)), table(torch.zeros(2, WORDS).double())
    given = (each, zeros, each, table(raw), torch.tensor([10, 3]), torch.tensor([True, False]))
    shares = Shares(kl=5, hard=2, temperature=2)
    one, other = (Loss(shares=shares, rule=r).of(*given, torch.tensor([-1, -1])).detach() for r in (both, alone))
    assert torch.equal(one, other)


def test_labels_are_softened_for_whole_words() -> None:
    """he .3, xe .06 in one class: half for each, whichever the text says; behind 7 all of xe goes on to 9."""
    made = word_rule()
    made.marked([text(1, 7, 9)])
    taught(made, {(0, 5): 0.3, (0, 7): 0.1, (1, 9): 0.6})
    logs = torch.full((2, WORDS), 1 / WORDS).log()
    soft = made.soft(torch.tensor([7, 9]), logs, torch.tensor([0, 1]))
    assert soft[0, [5, 7]].tolist() == pytest.approx([0.5, 0.5])
    assert soft[1, 9] == pytest.approx(1)
    assert soft.sum(-1).tolist() == pytest.approx([1, 1])


def test_a_label_behind_a_word_that_begins_another_of_its_class_stands_for_the_ended_one() -> None:
    """Words [6] and [6, 4]: behind 6 half goes on to 4; the other half is the label, or as the teacher says."""
    made = word_rule(SequenceClass("nested", GROUPS, (((6,),), ((6, 4),))), strength=0.5)
    made.marked([text(1, 6, 3), text(1, 6, 4, 3)])
    taught(made, {(0, 6): 0.5, (1, 4): 0.2}, starts=2)
    logs = torch.full((2, WORDS), 0.1 / (WORDS - 3)).log()
    logs[:, [4, 3, 2]] = torch.tensor([0.2, 0.6, 0.1]).log()
    soft = made.soft(torch.tensor([3, 4]), logs, torch.tensor([1, 3]))
    assert soft[0, [3, 4]].tolist() == pytest.approx([0.5 + 0.25, 0.25])
    assert soft[1, [4, 3, 2]].tolist() == pytest.approx([0.5 + 0.25, 0.25 * 0.6 / 0.8, 0.25 * 0.1 / 0.8])


def test_emphasis_is_by_the_share_that_leads_to_words() -> None:
    made = word_rule(emphasis=10.0)
    made.marked([text(1, 7, 9)])
    taught(made, {(0, 5): 0.3, (0, 7): 0.1, (1, 9): 0.6})
    assert made.weight(torch.tensor([0, 1])).tolist() == pytest.approx([1 + 3.6, 1 + 6])
    assert math.isclose(float(np.exp(made.targets.words.numpy()).sum()), 0.36)  # type: ignore[union-attr]
