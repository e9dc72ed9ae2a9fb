"""Chunked losses: the values and gradients of the plain computation, and never more rows of logits than asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils._python_dispatch import TorchDispatchMode

from evenhand.errors import SettingsError
from evenhand.training import chunked_cross_entropy, chunked_kl, chunked_sum

ROWS, WIDTH, WORDS = 23, 6, 41
IGNORED = -100


class Lora(nn.Module):
    """A frozen head under a low-rank adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WORDS).requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WORDS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.up(self.down(x))
        return out


def head_of(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    head: nn.Module = Lora() if kind == "lora" else nn.Linear(WIDTH, WORDS, bias=kind != "no bias")
    with torch.no_grad():
        for p in head.parameters():
            p.mul_(3)
    return head.to(dtype).requires_grad_(False) if kind == "frozen" else head.to(dtype)


def rows_of(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Hidden states, and targets of which some are ignored: the whole second chunk of 5 among them."""
    torch.manual_seed(seed)
    hidden = torch.randn(ROWS, WIDTH, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(WORDS, (ROWS,))
    targets[5:10] = targets[0] = targets[-1] = IGNORED
    return hidden, targets


def gradients(loss: Tensor, hidden: Tensor, head: nn.Module) -> list[Tensor | None]:
    wanted = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    return list(torch.autograd.grad(3 * loss, wanted))  # 3: the gradient that comes from above counts


def check(ours: Tensor, plain: Tensor, hidden: Tensor, head: nn.Module, tolerance: float = 1e-12) -> None:
    assert ours.item() == pytest.approx(plain.item(), rel=tolerance, abs=tolerance)
    for a, b in zip(gradients(ours, hidden, head), gradients(plain, hidden, head), strict=True):
        assert a is not None and b is not None and b.abs().max() > 0
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance) and a.dtype == b.dtype


def capped(x: Tensor) -> Tensor:
    return torch.tanh(x / 2) * 2


# -------------------------------------------------------------------------------------------------- cross-entropy


@pytest.mark.parametrize("kind", ["plain", "no bias", "frozen", "lora"])
@pytest.mark.parametrize("chunk", [1, 5, 7, 1000])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_is_the_plain_one(kind: str, chunk: int, reduction: Any) -> None:
    (hidden, targets), head = rows_of(), head_of(kind)
    ours = chunked_cross_entropy(hidden, head, targets, chunk=chunk, finish=capped, reduction=reduction)
    plain = cross_entropy(capped(head(hidden)), targets, ignore_index=IGNORED, reduction=reduction)
    check(ours, plain, hidden, head)


def test_a_known_answer() -> None:
    """Logits (0, log 3): probabilities 1/4 and 3/4."""
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[0.0], [1.0]])
    hidden = torch.full((3, 1), 3.0).log()
    loss = chunked_cross_entropy(hidden, head, torch.tensor([0, 1, 1]), chunk=2, reduction="sum")
    assert loss.item() == pytest.approx(torch.tensor([4.0, 4 / 3, 4 / 3]).log().sum().item())


def test_where_nothing_counts_the_loss_is_zero_and_so_are_the_gradients() -> None:
    (hidden, _), head = rows_of(), head_of("plain")
    loss = chunked_cross_entropy(hidden, head, torch.full((ROWS,), IGNORED))
    assert loss.item() == 0
    loss.backward()
    assert hidden.grad is not None and hidden.grad.abs().max() == 0


def test_a_tied_head_sums_both_gradients() -> None:
    embedding, head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
    head.weight = embedding.weight
    ids, targets = torch.randint(WORDS, (ROWS,)), rows_of()[1]
    made = []
    for loss in (
        chunked_cross_entropy(embedding(ids).tanh(), head, targets, chunk=4),
        cross_entropy(head(embedding(ids).tanh()), targets),
    ):
        made += torch.autograd.grad(loss, [embedding.weight])
    assert torch.allclose(*made, atol=1e-6)


def test_half_precision_has_the_softmax_and_the_sums_in_float32() -> None:
    (hidden, targets), head = rows_of(torch.bfloat16), head_of("plain", torch.bfloat16)
    ours = chunked_cross_entropy(hidden, head, targets, chunk=2)
    plain = cross_entropy(head(hidden).float(), targets)
    assert ours.dtype == torch.float32 and ours.item() == pytest.approx(plain.item(), rel=1e-6)
    check(ours, plain, hidden, head, tolerance=1e-2)


class TwoBiases(nn.Module):
    """Both get the same gradient, which autograd hands out as one tensor; a third is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.unused = (nn.Parameter(torch.zeros(WORDS)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.one + self.two


def test_weights_that_share_a_gradient_and_weights_without_one() -> None:
    head, hidden, targets = TwoBiases(), torch.randn(ROWS, WORDS), rows_of()[1]
    chunked_cross_entropy(hidden, head, targets, chunk=1).backward()
    ours, head = [head.one.grad, head.two.grad, head.unused.grad], TwoBiases()
    cross_entropy(head(hidden), targets).backward()
    assert ours[0] is not None and ours[1] is not None and head.one.grad is not None
    assert torch.allclose(ours[0], head.one.grad, atol=1e-7) and torch.equal(ours[0], ours[1]) and ours[2] is None


def test_small_gradients_are_not_lost_in_half_precision() -> None:
    """One is added 1,000 times; a running sum in bfloat16 stays at 256."""
    head = nn.Linear(2, 3, bias=False, dtype=torch.bfloat16)
    hidden = torch.ones(1000, 2, dtype=torch.bfloat16)
    chunked_sum(hidden, head, lambda logits, _: logits.sum(), chunk=1).backward()
    assert head.weight.grad is not None and head.weight.grad.dtype == torch.bfloat16
    assert head.weight.grad.unique().tolist() == [1000.0]


def test_under_autocast_it_is_the_plain_one() -> None:
    (hidden, targets), head = rows_of(torch.float32), head_of("plain", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = chunked_cross_entropy(hidden, head, targets, chunk=4)
        plain = cross_entropy(head(hidden).float(), targets)
    check(ours, plain, hidden, head, tolerance=2e-2)


def test_dropout_of_the_head_is_that_of_its_loss() -> None:
    """The gradient belongs to the very logits of the loss: with an identity head it is non-zero where they are."""
    hidden, head = torch.ones(50, 8, requires_grad=True), nn.Sequential(nn.Dropout(0.5), nn.Identity())
    seen: list[Tensor] = []

    def loss_of(logits: Tensor, _: slice) -> Tensor:
        seen.append(logits.detach())
        return logits.sum()

    chunked_sum(hidden, head, loss_of, chunk=7).backward()
    assert hidden.grad is not None and torch.equal(hidden.grad, torch.cat(seen)) and hidden.grad.unique().numel() == 2


def test_without_gradients_nothing_is_kept() -> None:
    (hidden, targets), head = rows_of(), head_of("plain")
    with torch.no_grad():
        assert not chunked_cross_entropy(hidden, head, targets).requires_grad
    frozen = chunked_cross_entropy(hidden.detach(), head_of("frozen"), targets)
    assert not frozen.requires_grad and frozen.grad_fn is None


# ------------------------------------------------------------------------------------------------------------- KL


def plain_kl(student: Tensor, teacher: Tensor, direction: str, weights: Tensor) -> Tensor:
    """By torch, of both sides' log-probabilities."""
    pair = (student, teacher) if direction == "forward" else (teacher, student)
    rows = kl_div(*pair, reduction="none", log_target=True).sum(-1)
    return (rows * weights).sum() / weights.sum()


@pytest.mark.parametrize("kind", ["plain", "frozen", "lora"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("given", ["hidden", "log-probabilities"])
def test_kl_is_the_plain_one(kind: str, direction: Any, given: str) -> None:
    (hidden, targets), head = rows_of(), head_of(kind)
    teacher_head = nn.Linear(WIDTH + 1, WORDS).double()
    states = torch.randn(ROWS, WIDTH + 1, dtype=torch.float64, requires_grad=True)
    weights = (targets != IGNORED) * torch.rand(ROWS, dtype=torch.float64)
    theirs = log_softmax(capped(teacher_head(states)) / 2, dim=-1)
    options: dict[str, Any] = {"temperature": 2.0, "direction": direction, "weights": weights, "chunk": 5}
    if given == "hidden":
        ours = chunked_kl(hidden, head, states, teacher_head, teacher_finish=capped, **options)
    else:
        ours = chunked_kl(hidden, head, capped(teacher_head(states)).detach(), **options)
    taught = torch.autograd.grad(ours, [states, teacher_head.weight], retain_graph=True, allow_unused=True)
    assert taught == (None, None), "the teacher is not trained"
    student = log_softmax(head(hidden) / 2, dim=-1)
    check(ours, plain_kl(student, theirs.detach(), direction, weights), hidden, head)


def test_kl_of_a_model_with_itself_is_zero_and_a_known_one_is_not() -> None:
    (hidden, _), head = rows_of(), head_of("plain")
    assert chunked_kl(hidden, head, hidden, head).item() == pytest.approx(0, abs=1e-14)
    flat = nn.Linear(1, 2).double().requires_grad_(False)
    flat.weight.zero_(), flat.bias.zero_()
    teacher = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64).log()
    states = torch.zeros(2, 1, dtype=torch.float64)
    expected = 0.9 * torch.tensor(1.8).log() + 0.1 * torch.tensor(0.2).log()
    assert chunked_kl(states, flat, teacher, reduction="sum").item() == pytest.approx(float(expected))
    by_bool = chunked_kl(states, flat, teacher, weights=torch.tensor([True, False]))
    assert by_bool.item() == pytest.approx(float(expected))


def test_what_the_teacher_excludes() -> None:
    (hidden, _), head = rows_of(), head_of("plain")
    teacher = torch.randn(ROWS, WORDS, dtype=torch.float64)
    teacher[:, 7] = -torch.inf
    loss = chunked_kl(hidden, head, teacher, chunk=4)
    rest = teacher.softmax(-1)
    mine = log_softmax(head(hidden), -1)
    plain = (rest * (rest.clamp_min(1e-300).log() - mine)).sum(-1).mean()
    check(loss, plain, hidden, head)
    assert chunked_kl(hidden, head, teacher, direction="reverse").item() == torch.inf


def test_a_rule_changes_the_target() -> None:
    """Two words made equally probable, their sum and all others kept."""
    (hidden, _), head = rows_of(), head_of("plain")
    teacher = torch.randn(ROWS, WORDS, dtype=torch.float64)

    def rule(logprobs: Tensor) -> Tensor:
        out = logprobs.clone()
        out[:, :2] = logprobs[:, :2].logsumexp(-1, keepdim=True) - torch.tensor(2.0).log()
        return out

    ours = chunked_kl(hidden, head, teacher, temperature=3.0, target=rule, chunk=6)
    theirs = rule(log_softmax(teacher / 3, -1))
    assert torch.allclose(theirs.exp().sum(-1), torch.ones(ROWS, dtype=torch.float64))
    check(ours, plain_kl(log_softmax(head(hidden) / 3, -1), theirs, "forward", torch.ones(ROWS)), hidden, head)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h, w, t: chunked_kl(h, w, h, w, temperature=0), "temperature=0"),
        (lambda h, w, t: chunked_kl(h, w, h, w, direction="back"), "'back'"),
        (lambda h, w, t: chunked_kl(h, w, torch.zeros(ROWS, WORDS + 1)), f"{WORDS + 1} tokens"),
        (lambda h, w, t: chunked_cross_entropy(h, w, t, reduction="none"), "'none'"),
        (lambda h, w, t: chunked_cross_entropy(h, w, t, chunk=0), "chunk=0"),
        (lambda h, w, t: chunked_sum(h[None], w, lambda x, _: x.sum()), "hidden"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[..., Tensor], message: str) -> None:
    (hidden, targets), head = rows_of(), head_of("plain")
    with pytest.raises(SettingsError, match=message):
        call(hidden, head, targets)


# --------------------------------------------------------------------------------------------------------- memory


class Recording(nn.Linear):
    """Keeps the number of rows of every call, in recomputations too."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WORDS)
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(x.shape[:-1].numel())
        return super().forward(x)


class Largest(TorchDispatchMode):
    """The most rows of logits in any tensor that is made, forward or backward."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and tensor.dim() > 1 and tensor.shape[-1] == WORDS:
                self.rows = max(self.rows, tensor.shape[:-1].numel())
        return out


def test_no_more_rows_than_asked_for_and_each_once() -> None:
    (hidden, targets), head, teacher = rows_of(torch.float32), Recording(), Recording()
    counted = int((targets != IGNORED).sum())
    with Largest() as largest:
        chunked_cross_entropy(hidden, head, targets, chunk=7).backward()
        assert max(head.rows) == 7 and sum(head.rows) == counted
        head.rows.clear()
        loss = chunked_kl(hidden, head, hidden.detach(), teacher, weights=targets != IGNORED, chunk=8)
        loss.backward()
    assert max(head.rows) == max(teacher.rows) == 8 and sum(head.rows) == sum(teacher.rows) == counted
    assert largest.rows == 8 > WIDTH, "the transposed weights are [WIDTH, WORDS]"
    with Largest() as control:
        cross_entropy(head(hidden), targets).backward()
    assert control.rows == ROWS, "the count sees what the plain computation holds"
