"""Scoring and generation over whole lists of token-id requests.

The seam: models hand over `Request`s and `Prompt`s made of token ids and get numbers and token ids back. What happens
between (batching, sharing, back-off, cache) is the engine's own business and changes no result beyond float tolerance.

It may import `data`, `statistics`, `prompting`, `core` and below; it knows token ids, and no `Model`.
"""

from evenhand.inference.engine import Engine
from evenhand.inference.requests import Generated, Prompt, Request

__all__ = ["Engine", "Generated", "Prompt", "Request"]
