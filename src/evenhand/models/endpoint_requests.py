"""Bodies of chat completions: what is asked, what is passed through, and what a server said that it does not take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from evenhand.core.draws import seeded_hash
from evenhand.errors import SettingsError
from evenhand.interfaces import Dialogue, Sampling
from evenhand.models.endpoint_servers import NEUTRAL

OWN: dict[str, str] = {
    "temperature": "sampling",
    "top_p": "sampling",
    "max_tokens": "sampling (max_new_tokens)",
    "stop": "sampling",
    "seed": "sampling",
}
"""Fields that follow from the sampling; None in `extra` leaves one out."""
FIXED = frozenset({"model", "messages", "stream", "n", "logprobs", "top_logprobs", "max_completion_tokens"})
"""Fields that cannot be changed: replies could not be read, or would answer something else."""
_REFUSED = re.compile(
    r"unsupported (?:parameter|param|value|field|argument)|(?:not|isn't) supported|is unsupported|does not support"
    r"|extra (?:fields|inputs) (?:are )?not permitted|extra_forbidden|additional properties"
    r"|un(?:known|recognized|expected) (?:request )?(?:field|parameter|param|argument|name|key)s? ?[:'\"`]"
    r"|unrecognized request argument",
    re.IGNORECASE,
)
"""How servers say that they do not take a field: OpenAI, vLLM, Mistral and Anthropic (pydantic, old and new), text
generation inference (serde), litellm, Groq."""
_NAMED = re.compile(
    r"['\"`](?P<quoted>\w+)['\"`]"
    r"|(?:parameters?|param|arguments?|fields?|->)(?: supplied)?:? +(?P<after>\w+)"
    r"|(?P<before>\w+): extra ",
    re.IGNORECASE,
)
"""Where such a message names the field."""
_ALTERNATIVES = re.compile(
    r"expected one of|did you mean|\b(?:supported|allowed|valid|known) (?:field|parameter|argument|value|key)s",
    re.IGNORECASE,
)
"""What follows names fields that are taken."""
_NEEDED = frozenset({"model", "messages"})
_KEEPING_NEUTRAL = frozenset(name for fields in NEUTRAL.values() for name in fields)


def checked_extra(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields that are sent with every request, as they were given.

    Raises:
        SettingsError: A field has a place of its own, or a value is not JSON.
    """
    if extra is None:
        return {}
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise SettingsError(f"extra={extra!r} must hold request fields by name, such as extra={{'top_k': 20}}")
    for name, value in extra.items():
        if name in FIXED:
            raise SettingsError(f"extra cannot set {name!r}, which evenhand sets itself; leave it out")
        if name in OWN and value is not None:
            raise SettingsError(
                f"extra cannot set {name!r}: give it as {OWN[name]}; extra={{{name!r}: None}} leaves it out"
            )
    try:
        return dict(json.loads(json.dumps(extra, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"extra={extra!r} cannot be sent as JSON: {error}") from error


def written(model: str, dialogue: Dialogue, sampling: Sampling, room: int) -> dict[str, Any]:
    """The body that asks for a reply.

    Args:
        model: As the server calls it.
        dialogue: What is asked.
        sampling: How the reply is drawn.
        room: Tokens beyond `max_new_tokens`, for a thought.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [m._asdict() for m in dialogue.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,  # even 1.0 is sent: some servers would take the model's own default
        "max_tokens": sampling.max_new_tokens + room,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.temperature > 0:
        body["seed"] = request_seed(sampling.seed, dialogue.draw)
    return body


def with_extra(body: dict[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """The body with further fields, later ones first in rank; those that are None are left out."""
    whole = dict(body)
    for fields in more:
        whole.update(fields)
    return {name: value for name, value in whole.items() if value is not None}


def request_seed(seed: int, draw: int) -> int:
    """A seed per draw, within the 31 bits that every server takes."""
    return int.from_bytes(seeded_hash(seed, draw)[:4], "big") >> 1


def wants_other_limit(said: str, body: Mapping[str, Any]) -> bool:
    """Whether a refusal asks for `max_completion_tokens` in the place of `max_tokens`, as OpenAI's newer models do."""
    return "max_tokens" in body and "max_completion_tokens" in said


def other_limit(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with its limit as `max_completion_tokens`."""
    return {"max_completion_tokens" if name == "max_tokens" else name: value for name, value in body.items()}


def refused_field(said: str, body: Mapping[str, Any]) -> str:
    """The field that a server says it takes in no request, or not with this value; "" where it names none."""
    if not _REFUSED.search(said):
        return ""
    named = (group for found in _NAMED.finditer(_ALTERNATIVES.split(said)[0]) for group in found.groups() if group)
    return next((name for name in named if name in body and name not in _NEEDED), "")


def sentence(text: str) -> str:
    """A text with one full stop at its end, for something to follow."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def without_field(name: str) -> str:
    """What to do about a field that a server refuses."""
    if name == "temperature":
        return (
            "this model draws at a temperature of its own; extra={'temperature': None, 'top_p': None} leaves the "
            "choice to it, and then greedy replies are draws as well"
        )
    if name in ("logprobs", "top_logprobs"):
        return "use answer_by='generation'"
    if name in _KEEPING_NEUTRAL:
        return (
            "it keeps the server's own default out of replies; name the software that runs the model with server= "
            f"(server='other' sends no such field), or leave it out with extra={{{name!r}: None}}"
        )
    return f"leave it out with extra={{{name!r}: None}}"
