"""Scoring and generation over whole lists of token-id requests.

The interface: models pass `Request`s and `Prompt`s of token ids, and get numbers and token ids back. What happens
between (batching, sharing, back-off, cache) is internal to the engine, and changes no result beyond float tolerance.

It may import `data`, `statistics`, `prompting`, `core` and below; it knows token ids, but no `Model`.
"""

from evenhand.inference.engine import Engine
from evenhand.inference.requests import Generated, Prompt, Request

__all__ = ["Engine", "Generated", "Prompt", "Request"]
