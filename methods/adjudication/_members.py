"""Manage the members of the pool: each is opened one at a time, checked before anything is asked, and released."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from evenhand.core.text_output import size
from evenhand.errors import SettingsError
from evenhand.interfaces import Model


@dataclass(frozen=True)
class Member:
    """A model of the pool."""

    name: str
    """Unique within the pool."""
    open: Callable[[], Model]
    """Returns the model, which is released after each use unless it is `given`."""
    writes: bool = True
    """Whether it answers prompts."""
    judges: bool = True
    given: bool = False
    """Whether the caller holds it, so that it stays in memory in any case."""


class Seen(NamedTuple):
    """Facts found by looking at a member."""

    name: str
    fingerprint: str
    size: int
    """Size of its weights in bytes; 0 if they are elsewhere."""
    chat: bool
    """Whether it has a chat template, as far as known."""
    facts: dict[str, Any]


@contextmanager
def opened(member: Member) -> Iterator[Model]:
    """Yield the member's model, which is in memory only inside the block."""
    model: Model | None = member.open()
    heavy = not member.given and model is not None and "weights" in model.abilities
    try:
        yield model  # type: ignore[misc]
    finally:
        model = None
        if heavy:
            release()


def release() -> None:
    """Free memory that is no longer referenced."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def look(members: Sequence[Member]) -> list[Seen]:
    """Open every member once, one at a time, and refuse a pool that cannot adjudicate.

    Raises:
        SettingsError: There are fewer than two members, two are the same model, none writes, or one cannot do its part.
    """
    if len(members) < 2:
        raise SettingsError(
            f"a pool of {len(members)} cannot judge, as none judges its own answers. Add others: pool=[...] for models "
            "that answer and judge, judges=[...] for models that only judge"
        )
    seen = [_look(member) for member in members]
    for n, one in enumerate(seen):
        for other in seen[:n]:
            if one.fingerprint == other.fingerprint:
                raise SettingsError(f"{other.name} and {one.name} are the same model; it would judge its own answers")
    if not any(m.writes for m in members):
        raise SettingsError("no member of the pool answers; add at least one model to pool=[...]")
    for writer in members:
        if writer.writes and not any(j.judges and j.name != writer.name for j in members):
            raise SettingsError(f"no member judges {writer.name}; add a judge with judges=[...], or set peers=True")
    return seen


def stated(seen: Sequence[Seen], members: Sequence[Member], trains: bool = True) -> dict[str, Any]:
    """Estimate the memory that the pool needs, in bytes of weights, before anything is asked.

    The given model stays with its caller. In addition, one other is held at a time, or, in training, a copy of the
    member that learns; activations, caches and the optimizer of the adapter come on top.
    """
    given = sum(s.size for s, m in zip(seen, members, strict=True) if m.given)
    others = {s.name: s.size for s, m in zip(seen, members, strict=True) if not m.given}
    largest = max(others, key=lambda n: others[n], default="")
    beside = max([others.get(largest, 0), given if trains else 0])
    return {
        "weights_bytes": {s.name: s.size for s in seen},
        "largest_member": max(seen, key=lambda s: s.size).name,
        "peak_weights_bytes": given + beside,
        "said": (
            f"the given model stays in memory ({size(given)}), with one more at a time, at most {size(beside)}: "
            f"{size(given + beside)} of weights at the peak"
        ),
    }


def _look(member: Member) -> Seen:
    with opened(member) as model:
        if member.writes and "generate" not in model.abilities:
            raise SettingsError(f"{member.name} cannot write answers; move it from pool= to judges=")
        if member.judges and not {"score", "generate"} & model.abilities:
            raise SettingsError(f"{member.name} can neither score nor write, so it cannot judge")
        facts = model.facts()
        chat = facts.get("prompt_format", "chat template") == "chat template"
        if not chat:
            warnings.warn(
                f"{member.name} has no chat template: it is a base model, and is asked in a plain transcript "
                '("User: ... Assistant:"). Its answers and votes may be poor; take its instruction-tuned sibling if '
                "there is one",
                stacklevel=4,
            )
        return Seen(member.name, model.fingerprint, _size(model), chat, facts)


def _size(model: Model) -> int:
    if "weights" not in model.abilities:
        return 0
    return int(sum(p.numel() * p.element_size() for p in model.weights.module.parameters()))
