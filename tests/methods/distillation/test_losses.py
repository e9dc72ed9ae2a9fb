"""The loss of a student: what it converges to is known by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenhand.methods.distillation._fair import FairRule
from evenhand.methods.distillation._losses import Loss, Shares, means
from evenhand.methods.distillation._states import States
from evenhand.methods.distillation.rules import TokenClass, TokenRules, project
from evenhand.training.packing import IGNORED

HE, SHE, HIM, HIS, HER = 0, 1, 2, 3, 4
WORDS = 7
PAIR = TokenClass("subject", ("male", "female"), ((HE,), (SHE,)))
UNEQUAL = TokenClass("object", ("male", "female"), ((HIM, HIS), (HER,)))
ALL_OPEN = torch.tensor([True])


def rules(*classes: TokenClass) -> TokenRules:
    return TokenRules("test", "", False, classes or (PAIR, UNEQUAL))


def rule(strength: float = 1.0, **more: Any) -> FairRule:
    return FairRule(rules(), **{"mode": "arithmetic", "strength": strength, **more})


def table(rows: Tensor) -> nn.Linear:
    """A head that gives each one-hot context a row of logits."""
    head = nn.Linear(len(rows), rows.shape[1], bias=False, dtype=rows.dtype)
    head.weight.data = rows.T.contiguous()
    return head


def teacher(contexts: int = 3) -> Tensor:
    return torch.randn(contexts, WORDS, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


def contexts(count: int) -> States:
    return States(torch.eye(count, dtype=torch.float64), torch.zeros(0))


def loss(
    shares: Shares, by: FairRule, student: Tensor, labels: list[int], open: list[bool], chunk: int = 256
) -> Tensor:
    raw = teacher(len(student))
    each = contexts(len(student))
    head, their_head = table(student), table(raw)
    return (
        Loss(shares=shares, rule=by, chunk=chunk)
        .of(each, head, each, their_head, torch.tensor(labels), torch.tensor(open))
        .detach()
    )


def learned(shares: Shares, by: FairRule, labels: list[int], open: list[bool], steps: int = 400) -> Tensor:
    """[contexts, words] probabilities that a table of logits ends at."""
    raw, each = teacher(len(labels)), contexts(len(labels))
    head = table(torch.zeros_like(raw))
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-15)
    taught = Loss(shares=shares, rule=by)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = taught.of(each, head, each, table(raw), torch.tensor(labels), torch.tensor(open))
        torch.autograd.backward(value)
        assert head.weight.grad is not None
        head.weight.grad = head.weight.grad.contiguous()
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return torch.softmax(head.weight.T, dim=-1).detach()


def test_a_tabular_student_learns_the_projected_target_where_the_gate_is_open_and_the_teacher_elsewhere() -> None:
    made = learned(Shares(kl=5, hard=0, temperature=1), rule(), [IGNORED] * 3, [True, False, True])
    own = torch.log_softmax(teacher(), dim=-1)
    wanted = project(own, rules()).exp()
    assert torch.allclose(made[[0, 2]], wanted[[0, 2]], atol=1e-5)
    assert torch.allclose(made[1], own[1].exp(), atol=1e-5)
    assert made[0, HE] == pytest.approx(float(made[0, SHE]), abs=1e-5)
    assert made[0, [HIM, HIS]].sum() == pytest.approx(float(made[0, HER]), abs=1e-5)
    assert abs(float(made[1, HE] - made[1, SHE])) > 0.01


def test_with_temperature_the_student_at_that_temperature_is_the_target() -> None:
    made = learned(Shares(kl=1, hard=0, temperature=2), rule(), [IGNORED] * 3, [True] * 3)
    wanted = project(torch.log_softmax(teacher() / 2, dim=-1), rules())
    assert torch.allclose(torch.log_softmax(made.log() / 2, dim=-1).exp(), wanted.exp(), atol=1e-5)


def test_with_the_text_the_student_ends_between_target_and_text_by_their_weights() -> None:
    made = learned(Shares(kl=5, hard=2, temperature=1), rule(soften=False), [HE, 5, HER], [True] * 3)
    q = project(torch.log_softmax(teacher(), dim=-1), rules()).exp()
    y = torch.eye(WORDS, dtype=torch.float64)[[HE, 5, HER]]
    assert torch.allclose(made, (5 * q + 2 * y) / 7, atol=1e-5)


def test_a_softened_label_gives_each_group_its_share_in_the_teachers_proportions() -> None:
    logs = torch.tensor([[0.4, 0.1, 0.06, 0.02, 0.12, 0.2, 0.1]], dtype=torch.float64).log().repeat(4, 1)
    made = rule().soft(torch.tensor([HE, SHE, HIS, HER]), logs)
    assert torch.allclose(made[0], torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0], dtype=torch.float64))
    assert torch.equal(made[0], made[1])
    assert torch.allclose(made[2], torch.tensor([0, 0, 0.375, 0.125, 0.5, 0, 0], dtype=torch.float64))
    assert torch.allclose(made[2], made[3])
    half = rule(0.25).soft(torch.tensor([HE]), logs[:1])
    assert torch.allclose(half[0], torch.tensor([0.875, 0.125, 0, 0, 0, 0, 0], dtype=torch.float64))
    prior = rule(mode="prior", prior={"male": 0.2, "female": 0.8}).soft(torch.tensor([HE]), logs[:1])
    assert torch.allclose(prior[0, :2], torch.tensor([0.2, 0.8], dtype=torch.float64))


def test_only_labels_of_a_rule_at_open_places_are_softened() -> None:
    labels, open = torch.tensor([HE, HE, 5, HER]), torch.tensor([True, False, True, True])
    assert rule().softened(labels, open).tolist() == [True, False, False, True]
    assert not rule(0.0).softened(labels, open).any()
    assert not rule(soften=False).softened(labels, open).any()


def test_a_student_that_is_its_teacher_has_no_divergence_without_rules_and_some_with_them() -> None:
    shares = Shares(kl=5, hard=0, locality=3, temperature=2)
    assert float(loss(shares, rule(0.0), teacher(3), [IGNORED] * 3, [True] * 3)) == pytest.approx(0, abs=1e-12)
    assert float(loss(shares, rule(), teacher(3), [IGNORED] * 3, [False] * 3)) == pytest.approx(0, abs=1e-12)
    assert float(loss(shares, rule(), teacher(3), [IGNORED] * 3, [True] * 3)) > 0.01


def test_at_strength_0_the_target_is_the_very_same_tensor_and_nothing_is_weighed() -> None:
    logs = torch.log_softmax(teacher(), dim=-1)
    plain = rule(0.0, emphasis=10)
    assert plain.target(logs, torch.ones(3, dtype=torch.bool)) is logs
    assert plain.weight(logs, torch.ones(3, dtype=torch.bool)) is None


def test_the_released_code_is_geometric_whether_logits_are_averaged_before_the_temperature_or_after() -> None:
    raw = teacher()
    averaged = raw.clone()
    averaged[:, [HE, SHE]] = raw[:, [HE, SHE]].mean(-1, keepdim=True)
    released = torch.softmax(averaged / 2, dim=-1)
    one_pair = FairRule(rules(PAIR), mode="geometric", strength=1.0)
    made = one_pair.target(torch.log_softmax(raw / 2, dim=-1), torch.ones(3, dtype=torch.bool)).exp()
    assert torch.allclose(made, released)
    example = torch.tensor([[0.6, 0.1, 0.3]], dtype=torch.float64).log()
    assert one_pair.target(example, ALL_OPEN).exp()[0, 0] == pytest.approx(0.3101, abs=5e-5)


def test_the_locality_term_does_not_see_what_moves_among_the_rules_words() -> None:
    shares = Shares(kl=0, hard=0, locality=1, temperature=2)
    moved = teacher()
    moved[:, [HE, SHE, HER]] += torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    assert float(loss(shares, rule(), moved, [IGNORED] * 3, [True] * 3)) == pytest.approx(0, abs=1e-12)
    moved[:, 5] += 1
    logs = [torch.log_softmax(x[:, 5:] / 2, dim=-1) for x in (teacher(), moved)]
    expected = 4 * (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()
    assert float(loss(shares, rule(), moved, [IGNORED] * 3, [True] * 3)) == pytest.approx(float(expected))


def test_the_parts_are_means_over_their_own_rows_and_add_up_whatever_the_chunks() -> None:
    shares = Shares(kl=5, hard=2, locality=0.5, temperature=2)
    student = torch.zeros(3, WORDS, dtype=torch.float64)
    labels, open = [HE, IGNORED, 6], [True, True, False]
    whole = loss(shares, rule(emphasis=4.0), student, labels, open)
    for chunk in (1, 2):
        assert float(loss(shares, rule(emphasis=4.0), student, labels, open, chunk=chunk)) == pytest.approx(
            float(whole)
        )
    noted: dict[str, float] = {}
    raw, each = teacher(3), contexts(3)
    Loss(shares=shares, rule=rule(emphasis=4.0), parts=noted).of(
        each, table(student), each, table(raw), torch.tensor(labels), torch.tensor(open)
    )
    found = means(noted, shares)
    assert found["loss"] == pytest.approx(float(whole))
    assert found["hard"] == pytest.approx(math.log(WORDS))  # of an even student, softened or not


def test_the_cosine_is_one_less_the_mean_over_places() -> None:
    shares = Shares(kl=0, hard=1, cosine=2, temperature=1)
    each = torch.eye(2, dtype=torch.float64)
    student = States(each, torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
    other = States(each, torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64))
    zeros = table(torch.zeros(2, WORDS, dtype=torch.float64))
    made = (
        Loss(shares=shares, rule=rule())
        .of(student, zeros, other, zeros, torch.tensor([IGNORED] * 2), torch.tensor([True] * 2))
        .detach()
    )
    assert float(made) == pytest.approx(2 * (0 + 1 - math.sqrt(0.5)) / 2)


def test_emphasis_weighs_places_by_the_probability_of_the_rules_words() -> None:
    logs = torch.tensor([[0.3, 0.2, 0, 0, 0, 0.25, 0.25], [0, 0, 0, 0, 0, 0.5, 0.5]], dtype=torch.float64).log()
    found = rule(emphasis=10).weight(logs, torch.tensor([True, False]))
    assert found is not None
    assert found.tolist() == pytest.approx([6, 1])
