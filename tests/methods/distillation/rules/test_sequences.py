"""Words of several tokens: the rule holds for whole words, by hand-made numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.methods.distillation.rules import (
    SequenceClass,
    TokenClass,
    TokenRules,
    Tree,
    project,
    project_tree,
    tree_of,
)

# "xe" is [7, 9] and "xer" is [7, 8]: they share their first token. "he" is [5]; [6] and [6, 4] are words, too.
GROUPS = ("a", "b")
SHARED = SequenceClass("shared", GROUPS, (((7, 9),), ((7, 8),)))
APART = SequenceClass("apart", GROUPS, (((5,),), ((7, 9),)))
NESTED = SequenceClass("nested", GROUPS, (((6,),), ((6, 4),)))
WORDS = 10


def tree(*sequences: SequenceClass, singles: tuple[TokenClass, ...] = ()) -> Tree:
    return tree_of(TokenRules("test", "", False, singles, sequences))


def rows(*given: dict[int, float]) -> Tensor:
    """[P, words] logs; what is not named is even."""
    out = np.zeros((len(given), WORDS))
    for row, named in zip(out, given, strict=True):
        row[:] = (1 - sum(named.values())) / (WORDS - len(named))
        for token, p in named.items():
            row[token] = p
    return torch.tensor(out).log()


def drawn(held: Tree, seed: int = 0, many: tuple[int, ...] = ()) -> Tensor:
    made = torch.randn(*many, len(held.prefixes), WORDS, generator=torch.Generator().manual_seed(seed)).double()
    return (3 * made).log_softmax(-1)


def probability(held: Tree, logs: Tensor) -> dict[tuple[int, ...], Any]:
    """Of each word as an event of its own: a word that begins others is followed by no token that leads on to them."""
    at = {prefix: n for n, prefix in enumerate(held.prefixes)}
    out = {}
    for word in held.words:
        p = torch.stack([logs[..., at[word[:n]], word[n]] for n in range(len(word))]).sum(0).exp()
        if word in at:
            p = p * (1 - sum(logs[..., at[word], e.token].exp() for e in held.edges if e.prefix == at[word]))
        out[word] = p
    return out


def beside(held: Tree, logs: Tensor) -> Tensor:
    """[P * words] joint log-probability of all that is one token behind a beginning and leads to no word."""
    at = {prefix: n for n, prefix in enumerate(held.prefixes)}
    steps = {(e.prefix, e.token) for e in held.edges}
    found = []
    for prefix, n in at.items():
        if prefix in held.words:
            continue
        mass = sum(logs[at[prefix[:k]], prefix[k]] for k in range(len(prefix)))
        found += [mass + logs[n, t] for t in range(WORDS) if (n, t) not in steps]
    return torch.stack(found)


def test_words_that_share_their_first_token_are_told_apart_by_the_second() -> None:
    """P(xe) = .4 x .6, P(xer) = .4 x .1: M = .28, so .14 each, and so .35 each behind [7], whose own .4 stays."""
    held = tree(SHARED)
    assert held.prefixes == ((), (7,))
    logs = rows({7: 0.4}, {9: 0.6, 8: 0.1})
    out = project_tree(logs, held)
    torch.testing.assert_close(out[0], logs[0])
    assert out[1].exp()[[9, 8]].tolist() == pytest.approx([0.35, 0.35])
    torch.testing.assert_close(out[1, :8], logs[1, :8])
    assert probability(held, out)[7, 9] == pytest.approx(0.14)


def test_a_word_of_one_token_beside_one_of_two() -> None:
    """P(he) = .2, P(xe) = .1 x .5 = .05: M = .25, .125 each. Behind [7] lie .05 that are no word, and stay so:
    P(7) = .05 + .125 and P(9 | 7) = .125 / .175."""
    held = tree(APART)
    logs = rows({5: 0.2, 7: 0.1}, {9: 0.5, 0: 0.2})
    out = project_tree(logs, held)
    assert out[0].exp()[[5, 7]].tolist() == pytest.approx([0.125, 0.175])
    assert out[1].exp()[9] == pytest.approx(0.125 / 0.175)
    assert out[1].exp()[0] == pytest.approx(0.1 * 0.2 / 0.175)  # the text "7 0" is as probable as before
    rest = [t for t in range(WORDS) if t not in (5, 7)]
    assert torch.equal(out[0, rest], logs[0, rest])


def test_a_word_that_begins_another_is_what_is_followed_by_no_more_of_it() -> None:
    """P([6]) = .5, of which .4 x .5 = .2 go on to [6, 4] and .3 do not: M = .5, .25 each, so half of [6] goes on."""
    held = tree(NESTED)
    logs = rows({6: 0.5}, {4: 0.4, 1: 0.3})
    out = project_tree(logs, held)
    torch.testing.assert_close(out[0], logs[0])
    assert out[1].exp()[[4, 1]].tolist() == pytest.approx([0.5, 0.25])


def test_a_class_of_single_tokens_that_begin_words_of_another_class() -> None:
    """him | her as single tokens, himself | herself behind them: both rules hold at once, and neither takes the
    other's mass."""
    him, her, itself = 2, 3, 8
    held = tree(
        SequenceClass("reflexive", GROUPS, (((him, itself),), ((her, itself),))),
        singles=(TokenClass("object", GROUPS, ((him,), (her,))),),
    )
    logs = rows({him: 0.4, her: 0.2}, {itself: 0.75}, {itself: 0.5})  # events .1, .1 and .3, .1
    out = project_tree(logs, held)
    found = probability(held, out)
    assert [float(found[w]) for w in ((him,), (her,))] == pytest.approx([0.1, 0.1])
    assert [float(found[w]) for w in ((him, itself), (her, itself))] == pytest.approx([0.2, 0.2])
    assert out[0].exp()[[him, her]].tolist() == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("mode", ["arithmetic", "geometric", "prior"])
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_with_words_of_one_token_it_is_the_projection_of_tokens(mode: Any, strength: float) -> None:
    three = TokenClass("y", ("a", "b", "c"), ((4,), (5,), (6, 9)), (0.5, 0.25, 0.25))
    two = TokenClass("x", GROUPS, ((1, 2), (3,)), (0.2, 0.8))
    single = TokenRules("test", "", False, (two, three))
    held = tree_of(single)
    assert held.prefixes == ((),)
    for seed in range(5):
        logs = drawn(held, seed)
        out, wanted = (
            project_tree(logs, held, mode=mode, strength=strength),
            project(logs, single, mode=mode, strength=strength),
        )
        torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
        if mode != "geometric":
            assert torch.equal(out, wanted)


ALL = (
    SequenceClass("all", ("a", "b", "c"), (((7, 9), (5,)), ((7, 8, 1), (6,)), ((6, 4, 7),))),
    SequenceClass("more", GROUPS, (((2, 3),), ((7, 8),))),
)


@pytest.mark.parametrize("seed", range(4))
def test_whole_words_are_equal_the_sum_stays_and_every_other_text_keeps_its_probability(seed: int) -> None:
    held = tree(*ALL)
    assert held.prefixes == ((), (2,), (6,), (7,), (6, 4), (7, 8))
    logs = drawn(held, seed)
    out = project_tree(logs, held)
    was, now = probability(held, logs), probability(held, out)
    groups = [[sum(of[w] for w in group) for group in c.sequences] for c in ALL for of in (was, now)]
    for before, after in (groups[:2], groups[2:]):
        assert float(sum(after)) == pytest.approx(float(sum(before)))
        assert [float(p) for p in after] == pytest.approx([float(after[0])] * len(after))
    assert float(now[7, 9] / now[5,]) == pytest.approx(float(was[7, 9] / was[5,]))  # within a group
    torch.testing.assert_close(out.logsumexp(-1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(beside(held, out), beside(held, logs))
    torch.testing.assert_close(project_tree(out, held), out, rtol=1e-9, atol=1e-9)


def test_geometric_takes_all_other_texts_alike_and_prior_gives_shares() -> None:
    held = tree(APART)
    logs = rows({5: 0.4, 7: 0.2}, {9: 0.5})
    out = project_tree(logs, held, mode="geometric")
    whole = 2 * math.sqrt(0.4 * 0.1) + 0.5
    found = probability(held, out)
    assert [float(p) for p in found.values()] == pytest.approx([0.2 / whole] * 2)
    torch.testing.assert_close(beside(held, out), beside(held, logs) - math.log(whole))
    torch.testing.assert_close(project_tree(out, held, mode="geometric"), out)
    shares = probability(held, project_tree(logs, held, mode="prior", prior={"a": 0.2, "b": 0.8}))
    assert [float(p) for p in shares.values()] == pytest.approx([0.1, 0.4])


def test_strength_goes_from_the_same_tensor_to_the_rule() -> None:
    held = tree(SHARED)
    logs = rows({7: 0.4}, {9: 0.6, 8: 0.1})
    assert project_tree(logs, held, strength=0) is logs
    out = project_tree(logs, held, strength=0.4)
    assert out[1].exp()[[9, 8]].tolist() == pytest.approx([0.5, 0.2])


def test_rows_do_not_touch_one_another_and_the_input_stays() -> None:
    held = tree(*ALL)
    logs = drawn(held, 1, (3, 2))
    before = logs.clone()
    out = project_tree(logs, held)
    assert torch.equal(logs, before)
    torch.testing.assert_close(out[2, 1], project_tree(logs[2, 1], held))
    half = project_tree(logs.float(), held)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), out, rtol=1e-4, atol=1e-4)


def test_a_beginning_that_leaves_nothing_beside_words_stays_finite() -> None:
    """All of [6] goes on to [6, 4] as far as floats can tell, so "the" by itself has next to no probability."""
    held = tree(NESTED)
    logs = torch.full((2, WORDS), -60.0)
    logs[0, 6], logs[1, 4] = math.log(0.5), 0.0
    logs[0, 0] = math.log(0.5)
    out = project_tree(logs, held)
    assert bool(out.isfinite().all())
    assert out[1].exp()[4] == pytest.approx(0.5)
    assert out[1].exp().sum() == pytest.approx(1, abs=1e-5)


def test_classes_that_share_a_word_are_one_and_a_word_of_two_groups_is_refused() -> None:
    lower = SequenceClass("r", GROUPS, (((7, 9),), ((7, 8),)))
    assert len(tree(lower, SequenceClass("r", GROUPS, (((7, 9),), ((7, 8),)))).rules.classes) == 1
    with pytest.raises(SettingsError, match="stand for group b and for group a"):
        tree(lower, SequenceClass("s", GROUPS, (((7, 8),), ((5,),))))
    with pytest.raises(SettingsError, match="priors differ"):
        tree(lower, SequenceClass("s", GROUPS, (((7, 9),), ((5,),)), (0.1, 0.9)))
    with pytest.raises(SettingsError, match="token id 9"):
        project_tree(torch.zeros(2, 8).log_softmax(-1), tree(lower))
