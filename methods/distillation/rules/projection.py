"""Move probability so that the rules hold: two projections onto distributions with equal groups, and a prior.

Write P_g for the probability of a group (the sum over its tokens), K for the number of groups in its class and M for
the sum of the class. Among all distributions q with equal groups

- arithmetic, q_g = M / K, has the least KL(p || q). It keeps M and leaves every token outside the class as it was.
- geometric, q_g proportional to (P_1 ... P_K)^(1/K), has the least KL(q || p). With one token per group it is what the
  code of Delobelle & Berendt 2022 (arXiv 2207.04546) does: it averages the logits of each pair and applies softmax. It
  loses mass of the class to the rest: (.6, .1, .3) becomes (.31, .31, .38), where arithmetic gives (.35, .35, .3).
- prior, q_g = M pi_g, is arithmetic with given shares instead of 1 / K.

In all of them the tokens within a group keep their proportions, which either divergence asks for as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, get_args

from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from evenhand.methods.distillation.rules.tokens import RuleTensors, TokenRules

Mode = Literal["arithmetic", "geometric", "prior"]
MODES: tuple[Mode, ...] = get_args(Mode)


def project(
    logprobs: Tensor,
    rules: TokenRules,
    *,
    mode: Mode = "arithmetic",
    strength: float = 1.0,
    prior: Mapping[str, float] | None = None,
    where: Tensor | None = None,
) -> Tensor:
    """Return the distributions with the rules applied.

    A token of probability 0 has no proportion to keep: a group without any mass gets its share split evenly over its
    tokens. A geometric mean with a group of probability 0 is 0 for the whole class; where a row had nothing but such
    classes no distribution is left, and the row gets the arithmetic mean.

    Args:
        logprobs: [..., vocabulary] natural log-probabilities, tempered already if a temperature is used. Geometric also
            takes raw logits, since it normalises at the end.
        rules: The words of a pack in this model's tokenizer.
        mode: See the module's docstring.
        strength: 0 .. 1, how far to move towards the projection: arithmetic and prior in probability, geometric in
            log-probability. At 0 the same tensor object is returned.
        prior: Group -> share, for mode "prior"; None takes the shares of the pack.
        where: [...] booleans; other rows stay as they are.

    Returns:
        A new tensor of the input's shape and dtype; computed in float32 unless the input is float64.

    Raises:
        SettingsError: The strength is outside 0 .. 1, the mode unknown, a needed prior missing, or a token id is beyond
            the vocabulary.
    """
    import torch

    log_shares = _log_shares(rules, mode, prior)
    if not 0 <= strength <= 1:
        raise SettingsError(f"strength={strength}: set a number from 0 (no change) to 1 (groups equal)")
    if strength == 0 or not rules.classes:
        return logprobs
    if where is not None:
        out = logprobs.clone()
        out[where] = project(logprobs[where], rules, mode=mode, strength=strength, prior=prior)
        return out
    known = rules.tensors(logprobs.device)
    if rules.highest >= logprobs.shape[-1]:
        raise SettingsError(
            f"the rules contain token id {rules.highest}, but the vocabulary ends at {logprobs.shape[-1] - 1}: "
            "resolve the pack with this model's own tokenizer"
        )
    exact = torch.float64 if logprobs.dtype == torch.float64 else torch.float32
    held = logprobs.index_select(-1, known.ids).to(exact)  # [..., n]
    mass = _sums(held, known.members)  # [..., G]
    even = _sums(mass, known.groups)[..., known.owner] + log_shares.to(device=held.device, dtype=exact)
    if mode != "geometric":
        new = _between(mass, even, strength)
        return logprobs.index_copy(-1, known.ids, _spread(held, mass, new, known).to(logprobs.dtype))
    mean = _means(mass, known)
    new = mean if strength == 1 else (1 - strength) * mass + strength * mean
    out = _normalised(logprobs.to(exact).index_copy(-1, known.ids, _spread(held, mass, new, known)))
    empty = out.isnan().any(-1, keepdim=True)
    if bool(empty.any()):
        new = _between(mass, even, strength)
        flat = _normalised(logprobs.to(exact).index_copy(-1, known.ids, _spread(held, mass, new, known)))
        out = torch.where(empty, flat, out)
    return out.to(logprobs.dtype)


def released(logits: Tensor, pairs: Iterable[tuple[int, int]]) -> Tensor:
    """Reproduce the code of Delobelle & Berendt 2022: for each pair in turn, both logits become their mean.

    Pairs that share a token end up unequal, as a later pair moves it away from an earlier partner; that is kept, so
    that the difference to `project`, which merges such pairs, can be measured.

    Args:
        logits: [..., vocabulary] raw logits, before any temperature.
        pairs: Token ids.

    Returns:
        A new tensor of the same shape.
    """
    out = logits.clone()
    for a, b in pairs:
        mean = (out[..., a] + out[..., b]) / 2
        out[..., a] = mean
        out[..., b] = mean
    return out


def _log_shares(rules: TokenRules, mode: str, prior: Mapping[str, float] | None) -> Tensor:
    """Return the log of each group's share of its class, [G]."""
    import torch

    if mode not in MODES:
        raise SettingsError(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
    if prior is not None and mode != "prior":
        raise SettingsError(f"prior= is only for mode 'prior', but the mode is {mode!r}: set mode='prior'")
    shares: list[float] = []
    for c in rules.classes:
        if mode != "prior":
            shares += [1 / len(c.groups)] * len(c.groups)
            continue
        given = dict(zip(c.groups, c.prior, strict=True)) if prior is None and c.prior is not None else prior
        lacking = [g for g in c.groups if given is None or g not in given]
        if given is None or lacking:
            raise SettingsError(
                f"mode 'prior': no share for {', '.join(lacking)} in rule {c.name}; name them in prior= or in the pack"
            )
        total = sum(given[g] for g in c.groups)
        if min(given[g] for g in c.groups) < 0 or not total > 0:
            raise SettingsError(f"mode 'prior': shares must be at least 0 and not all 0, rule {c.name} has {given}")
        # A group that this tokenizer lacks takes no part, so the others' shares are normalised to sum to 1.
        shares += [given[g] / total for g in c.groups]
    return torch.tensor(shares, dtype=torch.float64).log()


def _sums(logs: Tensor, parts: Tensor) -> Tensor:
    """Return logs of sums over parts: [..., n] and [P, width] indices, padded with n, give [..., P]."""
    import torch

    padded = torch.cat([logs, logs.new_full((*logs.shape[:-1], 1), -math.inf)], -1)
    return padded[..., parts].logsumexp(-1)


def _means(mass: Tensor, known: RuleTensors) -> Tensor:
    """Return the mean log-mass of the class of each group, [..., G]."""
    import torch

    padded = torch.cat([mass, mass.new_zeros((*mass.shape[:-1], 1))], -1)
    counts = (known.groups < mass.shape[-1]).sum(-1)
    return (padded[..., known.groups].sum(-1) / counts)[..., known.owner]


def _between(old: Tensor, new: Tensor, strength: float) -> Tensor:
    """Return the log of the mixture of two masses given as logs."""
    import torch

    return new if strength == 1 else torch.logaddexp(old + math.log1p(-strength), new + math.log(strength))


def _spread(held: Tensor, old: Tensor, new: Tensor, known: RuleTensors) -> Tensor:
    """Return tokens with their groups' masses changed from `old` to `new` [..., G], [..., n]."""
    import torch

    none_left = old == -math.inf
    shift = torch.where(none_left, 0, new - old.masked_fill(none_left, 0))[..., known.group]
    evenly = (new - known.sizes.to(new.dtype).log())[..., known.group]
    return torch.where(none_left[..., known.group], evenly, held + shift)


def _normalised(logs: Tensor) -> Tensor:
    return logs - logs.logsumexp(-1, keepdim=True)
