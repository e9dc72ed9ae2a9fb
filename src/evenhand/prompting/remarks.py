"""What is to be known about a result beyond its numbers: a warning now, and a note that stays with the result.

`remark` is called where something is found out, deep inside a method or a benchmark; `remarked` collects around it.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[str] | None] = ContextVar("evenhand_remarks", default=None)

WARM = 0.5
"""Temperature from which draws that never differ are suspicious; below it a sure model repeats itself."""
MIN_PROMPTS = 5
"""Prompts that must have been drawn from more than once."""
MIN_REPEATS = 30
"""Draws after the first of their prompt. A model that repeats itself with probability 0.9 at each of 30 independent
draws does so at all of them in 4 of 100 runs; at 0.8 in 1 of 800."""


@contextmanager
def remarked() -> Iterator[list[str]]:
    """Collect what is remarked inside, each text once; whoever collects around it hears it as well."""
    heard: list[str] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)
        if (outer := _heard.get()) is not None:
            outer += [text for text in heard if text not in outer]


def remark(text: str) -> None:
    """Warn, and leave the text with whoever collects remarks."""
    heard = _heard.get()
    if heard is not None and text not in heard:
        heard.append(text)
    warnings.warn(text, UserWarning, stacklevel=3)


def unsampled(draws: Iterable[tuple[Hashable, object]], temperature: float, what: str) -> str:
    """Why draws look as if nothing had been sampled, or "" where they do not.

    Only draws from one and the same prompt are compared: a sampler that works makes some of them differ, unless the
    model is as good as certain of every reply.

    Args:
        draws: Per draw what tells its prompt from others, and what was drawn; None, which is no reply, does not count.
        temperature: At which they were drawn.
        what: Is measured with them, for the text.
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
        f"same prompt, so {what} may measure nothing: the model is as good as certain of its replies, or (of a model "
        "behind an endpoint) the server may ignore temperature or answer from a cache of its own"
    )
