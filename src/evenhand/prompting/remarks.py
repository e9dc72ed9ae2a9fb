"""Remarks about a result beyond its numbers: a warning now, and a note that stays with the result.

`remark` is called wherever something is noticed, deep inside a method or a benchmark; `remarked` collects the remarks.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[str] | None] = ContextVar("evenhand_remarks", default=None)

WARM = 0.5
"""Temperature at or above which draws that never differ are suspicious; below it, a confident model repeats itself."""
MIN_PROMPTS = 5
"""Minimum number of prompts with more than one draw."""
MIN_REPEATS = 30
"""Minimum number of draws after the first of their prompt. A model that repeats itself with probability 0.9 at each of
30 independent draws does so at all of them in 4 of 100 runs; at 0.8 in 1 of 800."""


@contextmanager
def remarked() -> Iterator[list[str]]:
    """Collect the remarks made inside the block, each text once; an enclosing collector gets them as well."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
        if (outer := _heard.get()) is not None:
            outer += [text for text in heard if text not in outer]


def remark(text: str) -> None:
    """Warn, and add the text to the remarks that `remarked` collects."""
    heard = _heard.get()
    if heard is not None and text not in heard:
        heard.append(text)
    warnings.warn(text, UserWarning, stacklevel=3)


def unsampled(draws: Iterable[tuple[Hashable, object]], temperature: float, what: str) -> str:
    """Return why draws look as if nothing had been sampled, or "" if they do not.

    Only draws from the same prompt are compared: a working sampler makes some of them differ, unless the model is as
    good as certain of every reply.

    Args:
        draws: For each draw, what identifies its prompt, and what was drawn; None (a missing reply) does not count.
        temperature: Temperature of the draws.
        what: What is measured with them, for the text.
    """
    by_prompt: dict[Hashable, list[object]] = defaultdict(list)
    for prompt, drawn in draws:
        if drawn is not None:
            by_prompt[prompt].append(drawn)
    several = [found for found in by_prompt.values() if len(found) > 1]
    count = sum(map(len, several))
    if temperature < WARM or len(several) < MIN_PROMPTS or count - len(several) < MIN_REPEATS:
        return ""
    if any(len(set(found)) > 1 for found in several):
        return ""
    return (
        f"all {count} draws from {len(several)} prompts at temperature {temperature:g} agree with the others from the "
        f"same prompt, so {what} may measure nothing: the model is as good as certain of its replies, or (for a model "
        "served by an endpoint) the server may ignore temperature or answer from its own cache"
    )
