"""The projections against hand-made numbers and against a numeric minimum of either divergence."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from evenhand.errors import SettingsError
from evenhand.methods.distillation.rules import MODES, TokenClass, TokenRules, project, released

Groups = list[list[int]]


def rules(*classes: Groups, prior: tuple[float, ...] | None = None) -> TokenRules:
    """Classes as lists of groups of token ids; the groups are called a, b, c ..."""
    made = tuple(
        TokenClass(f"rule {n}", tuple("abcdef"[: len(groups)]), tuple(tuple(g) for g in groups), prior)
        for n, groups in enumerate(classes)
    )
    return TokenRules("test", "hash", False, made)


def projected(p: list[float], held: TokenRules, **settings: object) -> NDArray[np.float64]:
    logs = torch.tensor(p, dtype=torch.float64).log()
    return project(logs, held, **settings).exp().numpy()  # type: ignore[arg-type]


def random_rows(rows: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(-1)


PAIR = rules([[0], [1]])
UNEQUAL = rules([[1, 4, 6], [2], [9, 0]], [[3], [7, 8]])
"""Three groups of 3, 1 and 2 tokens, and a second class of 1 and 2; tokens 5, 10, 11 are in none."""


def test_the_example_of_the_paper() -> None:
    np.testing.assert_allclose(projected([0.6, 0.1, 0.3], PAIR), [0.35, 0.35, 0.3], atol=1e-12)
    np.testing.assert_allclose(projected([0.6, 0.1, 0.3], PAIR, mode="geometric"), [0.3101, 0.3101, 0.3798], atol=5e-5)
    shares = {"a": 0.2, "b": 0.8}
    np.testing.assert_allclose(
        projected([0.6, 0.1, 0.3], PAIR, mode="prior", prior=shares), [0.14, 0.56, 0.3], atol=1e-12
    )


def test_unequal_groups_by_hand() -> None:
    """Masses .4, .1, .1 of three groups become .2 each; .4 stood as .1 and .3, which keep their ratio."""
    p = [0.1, 0.3, 0.1, 0.06, 0.04, 0.4]
    held = rules([[0, 1], [2], [3, 4]])
    np.testing.assert_allclose(projected(p, held), [0.05, 0.15, 0.2, 0.12, 0.08, 0.4], atol=1e-12)
    mean = (0.4 * 0.1 * 0.1) ** (1 / 3)
    whole = 3 * mean + 0.4
    expected = np.array([mean / 4, 3 * mean / 4, mean, 0.6 * mean, 0.4 * mean, 0.4]) / whole
    np.testing.assert_allclose(projected(p, held, mode="geometric"), expected, atol=1e-12)


def test_half_way_by_hand() -> None:
    np.testing.assert_allclose(projected([0.6, 0.1, 0.3], PAIR, strength=0.5), [0.475, 0.225, 0.3], atol=1e-12)
    a, b = 0.6**0.75 * 0.1**0.25, 0.6**0.25 * 0.1**0.75
    expected = np.array([a, b, 0.3]) / (a + b + 0.3)
    np.testing.assert_allclose(projected([0.6, 0.1, 0.3], PAIR, mode="geometric", strength=0.5), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "divergence"),
    [
        ("arithmetic", lambda p, q: float((p * np.log(p / q)).sum())),
        ("geometric", lambda p, q: float((q * np.log(q / p)).sum())),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matches_the_numeric_minimum(
    mode: str, divergence: Callable[[NDArray[np.float64], NDArray[np.float64]], float], seed: int
) -> None:
    """Of all distributions with equal groups arithmetic has the least KL(p || q), geometric the least KL(q || p)."""
    p = np.random.default_rng(seed).dirichlet(np.ones(7))
    groups: Groups = [[0, 3], [1], [2, 5]]

    def distribution(z: NDArray[np.float64]) -> NDArray[np.float64]:
        e = np.exp(z - z.max())
        return np.asarray(e / e.sum())

    def unequal(z: NDArray[np.float64]) -> NDArray[np.float64]:
        mass = [distribution(z)[g].sum() for g in groups]
        return np.array([mass[0] - mass[1], mass[1] - mass[2]])

    found = minimize(
        lambda z: divergence(p, distribution(z)),
        np.log(p),
        constraints={"type": "eq", "fun": unequal},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.abs(unequal(found.x)).max() < 1e-6
    ours = projected(p.tolist(), rules(groups), mode=mode)
    np.testing.assert_allclose(ours, distribution(found.x), atol=2e-5)
    other = projected(p.tolist(), rules(groups), mode="geometric" if mode == "arithmetic" else "arithmetic")
    assert divergence(p, ours) < divergence(p, other)


@pytest.mark.parametrize("mode", MODES)
def test_sums_to_one_equal_and_idempotent(mode: str) -> None:
    logs = random_rows(5, 12)
    shares = {"a": 0.5, "b": 0.25, "c": 0.25} if mode == "prior" else None
    once = project(logs, UNEQUAL, mode=mode, prior=shares)  # type: ignore[arg-type]
    torch.testing.assert_close(once.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(project(once, UNEQUAL, mode=mode, prior=shares), once)  # type: ignore[arg-type]
    p = once.exp()
    masses = torch.stack([p[:, [1, 4, 6]].sum(-1), p[:, 2], p[:, [9, 0]].sum(-1)], -1)
    wanted = [2.0, 1.0, 1.0] if mode == "prior" else [1.0, 1.0, 1.0]
    torch.testing.assert_close(masses / masses[:, 1:2], torch.tensor([wanted] * 5, dtype=torch.float64))
    before = logs[:, [1, 4, 6]].softmax(-1)
    torch.testing.assert_close(once[:, [1, 4, 6]].softmax(-1), before)


def test_arithmetic_leaves_the_rest_bit_identical_and_keeps_each_class_mass() -> None:
    logs = random_rows(4, 12).float()
    for strength in (0.3, 1.0):
        out = project(logs, UNEQUAL, strength=strength)
        assert torch.equal(out[:, [5, 10, 11]], logs[:, [5, 10, 11]])
        for ids in ([1, 4, 6, 2, 9, 0], [3, 7, 8]):
            torch.testing.assert_close(out[:, ids].logsumexp(-1), logs[:, ids].logsumexp(-1))


def test_geometric_keeps_the_ratios_of_the_rest() -> None:
    logs = random_rows(4, 12)
    out = project(logs, UNEQUAL, mode="geometric")
    shift = (out - logs)[:, [5, 10, 11]]
    torch.testing.assert_close(shift, shift[:, :1].expand(-1, 3))


@pytest.mark.parametrize("mode", ["arithmetic", "geometric"])
def test_order_of_groups_classes_and_tokens_does_not_matter(mode: str) -> None:
    logs = random_rows(3, 12)
    other = rules([[8, 7], [3]], [[0, 9], [6, 1, 4], [2]])
    torch.testing.assert_close(
        project(logs, UNEQUAL, mode=mode),
        project(logs, other, mode=mode),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("mode", ["arithmetic", "geometric"])
def test_permuting_the_vocabulary_permutes_the_result(mode: str) -> None:
    logs = random_rows(3, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    at = {int(old): new for new, old in enumerate(order)}
    moved = rules(*[[[at[i] for i in g] for g in c.ids] for c in UNEQUAL.classes])
    direct = project(logs, UNEQUAL, mode=mode)[:, order]  # type: ignore[arg-type]
    torch.testing.assert_close(project(logs[:, order], moved, mode=mode), direct)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_strength_zero_is_the_very_input(mode: str) -> None:
    logs = random_rows(2, 12)
    shares = {"a": 0.5, "b": 0.25, "c": 0.25} if mode == "prior" else None
    assert project(logs, UNEQUAL, mode=mode, strength=0, prior=shares) is logs  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["arithmetic", "geometric"])
def test_monotone_in_strength(mode: str) -> None:
    logs = random_rows(6, 12)
    gaps = []
    for strength in np.linspace(0, 1, 9):
        p = project(logs, PAIR, mode=mode, strength=float(strength)).exp()  # type: ignore[arg-type]
        gaps.append((p[:, 0].log() - p[:, 1].log()).abs())
    steps = torch.stack(gaps)
    assert bool((steps[1:] < steps[:-1]).all()) and float(steps[-1].max()) < 1e-9


def test_geometric_is_the_released_code_on_raw_logits_at_every_temperature() -> None:
    logits = 5 * torch.randn(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 7
    for temperature in (1.0, 2.0):
        theirs = (released(logits, [(0, 1)]) / temperature).log_softmax(-1)
        torch.testing.assert_close(project((logits / temperature).log_softmax(-1), PAIR, mode="geometric"), theirs)
        torch.testing.assert_close(project(logits / temperature, PAIR, mode="geometric"), theirs)


def test_overlapping_pairs_end_unequal_in_the_released_code_and_equal_in_ours() -> None:
    """Logits 4, 0, 8: the pair (0, 1) gives 2, 2, 8, and then (1, 2) gives 2, 5, 5; their union is 4, 4, 4."""
    logits = torch.tensor([[4.0, 0.0, 8.0, 1.0]])
    assert released(logits, [(0, 1), (1, 2)]).tolist() == [[2.0, 5.0, 5.0, 1.0]]
    assert logits.tolist() == [[4.0, 0.0, 8.0, 1.0]]
    union = project(logits, rules([[0], [1], [2]]), mode="geometric")
    torch.testing.assert_close(union, torch.tensor([[4.0, 4.0, 4.0, 1.0]]).log_softmax(-1))


def test_zero_probabilities() -> None:
    held = rules([[0, 1], [2]])
    # A group without mass has no proportions: its share is split evenly.
    np.testing.assert_allclose(projected([0, 0, 0.6, 0.4], held), [0.15, 0.15, 0.3, 0.4], atol=1e-12)
    np.testing.assert_allclose(projected([0, 0, 0.6, 0.4], held, strength=0.5), [0.075, 0.075, 0.45, 0.4], atol=1e-12)
    np.testing.assert_allclose(projected([0, 0.6, 0, 0.4], held), [0, 0.3, 0.3, 0.4], atol=1e-12)
    np.testing.assert_allclose(projected([0, 0, 0, 1], held), [0, 0, 0, 1], atol=0)
    # The geometric mean with a zero is zero, unless nothing would be left.
    np.testing.assert_allclose(projected([0, 0, 0.6, 0.4], held, mode="geometric"), [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(projected([0, 0, 1, 0], held, mode="geometric"), [0.25, 0.25, 0.5, 0], atol=1e-12)
    shares = {"a": 0.0, "b": 1.0}
    np.testing.assert_allclose(
        projected([0.1, 0.3, 0.2, 0.4], held, mode="prior", prior=shares), [0, 0, 0.6, 0.4], atol=1e-12
    )


def test_extreme_logs_stay_exact() -> None:
    """e^-800 and e^-900 are 0 as floats, but not as logs: half of the larger, each."""
    logs = torch.tensor([[-800.0, -900.0, 0.0]], dtype=torch.float64)
    out = project(logs, PAIR)
    torch.testing.assert_close(out, torch.tensor([[-800 - math.log(2), -800 - math.log(2), 0.0]], dtype=torch.float64))
    out = project(logs, PAIR, mode="geometric")
    torch.testing.assert_close(out, torch.tensor([[-850.0, -850.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["arithmetic", "geometric"])
def test_half_precision(dtype: torch.dtype, mode: str) -> None:
    logs = random_rows(8, 12).to(dtype)
    out = project(logs, UNEQUAL, mode=mode)  # type: ignore[arg-type]
    assert out.dtype == dtype and bool(out.isfinite().all())
    exact = project(logs.double(), UNEQUAL, mode=mode)  # type: ignore[arg-type]
    torch.testing.assert_close(out.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-3)


def test_rows_and_shapes() -> None:
    logs = random_rows(6, 12)
    open_rows = torch.tensor([True, False, True, False, False, True])
    out = project(logs, UNEQUAL, where=open_rows)
    assert torch.equal(out[~open_rows], logs[~open_rows])
    torch.testing.assert_close(out[open_rows], project(logs, UNEQUAL)[open_rows])
    folded = project(logs.view(2, 3, 12), UNEQUAL, where=open_rows.view(2, 3))
    assert torch.equal(folded.view(6, 12), out)
    assert torch.equal(project(logs, UNEQUAL, where=torch.zeros(6, dtype=torch.bool)), logs)
    assert project(logs[:0], UNEQUAL, mode="geometric").shape == (0, 12)


def test_batch_size_does_not_matter() -> None:
    logs = random_rows(6, 12).float()
    for mode in ("arithmetic", "geometric"):
        rows = torch.cat([project(row[None], UNEQUAL, mode=mode) for row in logs])  # type: ignore[arg-type]
        torch.testing.assert_close(rows, project(logs, UNEQUAL, mode=mode))  # type: ignore[arg-type]


def test_the_input_is_never_changed() -> None:
    logs = random_rows(2, 12)
    before = logs.clone()
    for mode in ("arithmetic", "geometric"):
        project(logs, UNEQUAL, mode=mode)  # type: ignore[arg-type]
    assert torch.equal(logs, before)


def test_the_packs_prior_and_a_given_one() -> None:
    held = rules([[0], [1]], prior=(0.25, 0.75))
    np.testing.assert_allclose(projected([0.6, 0.2, 0.2], held, mode="prior"), [0.2, 0.6, 0.2], atol=1e-12)
    given = {"a": 3.0, "b": 1.0, "elsewhere": 9.0}
    np.testing.assert_allclose(projected([0.6, 0.2, 0.2], held, mode="prior", prior=given), [0.6, 0.2, 0.2], atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strength": 1.1}, "strength=1.1"),
        ({"strength": -0.1}, "strength=-0.1"),
        ({"mode": "harmonic"}, "harmonic"),
        ({"mode": "prior"}, "no share for a, b"),
        ({"mode": "prior", "prior": {"a": 1.0}}, "no share for b"),
        ({"mode": "prior", "prior": {"a": 1.0, "b": -1.0}}, "at least 0"),
        ({"prior": {"a": 1.0, "b": 1.0}}, "set mode='prior'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        projected([0.6, 0.1, 0.3], PAIR, **settings)


def test_a_vocabulary_that_ends_too_early_is_refused() -> None:
    with pytest.raises(SettingsError, match="token id 9"):
        project(random_rows(1, 8), UNEQUAL)
