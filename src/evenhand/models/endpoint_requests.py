"""Bodies of chat completions: what is asked, what is passed through, and which fields a server refuses."""

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
"""Fields that follow from the sampling; the value None in `extra` leaves one out."""
FIXED = frozenset({"model", "messages", "stream", "n", "logprobs", "top_logprobs", "max_completion_tokens"})
"""Fields that cannot be changed: replies would be unreadable or answer something else."""
_REFUSED = re.compile(
    r"unsupported (?:parameter|param|value|field|argument)|(?:not|isn't) supported|is unsupported|does not support"
    r"|extra (?:fields|inputs) (?:are )?not permitted|extra_forbidden|additional properties"
    r"|un(?:known|recognized|expected) (?:request )?(?:field|parameter|param|argument|name|key)s? ?[:'\"`]"
    r"|unrecognized request argument",
    re.IGNORECASE,
)
"""How servers report that they do not accept a field: OpenAI, vLLM, Mistral and Anthropic (pydantic, old and new), text
generation inference (serde), litellm, Groq."""
_NAMED = re.compile(
    r"['\"`](?P<quoted>\w+)['\"`]"
    r"|(?:parameters?|param|arguments?|fields?|->)(?: supplied)?:? +(?P<after>\w+)"
    r"|(?P<before>\w+): extra ",
    re.IGNORECASE,
)
"""Names of fields in such a message."""
_ALTERNATIVES = re.compile(
    r"expected one of|did you mean|\b(?:supported|allowed|valid|known) (?:field|parameter|argument|value|key)s",
    re.IGNORECASE,
)
"""The start of a list of accepted fields in the message."""
_NEEDED = frozenset({"model", "messages"})
_KEEPING_NEUTRAL = frozenset(name for fields in NEUTRAL.values() for name in fields)


def checked_extra(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the fields that are sent with every request.

    Raises:
        SettingsError: A field has an option of its own or cannot be set, or a value is not JSON.
    """
    if extra is None:
        return {}
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise SettingsError(f"extra={extra!r} must map request fields to values, such as extra={{'top_k': 20}}")
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
    """Return the body that asks for a reply.

    Args:
        model: Name of the model on the server.
        dialogue: Messages to send, with the number of the draw.
        sampling: How the reply is drawn.
        room: Tokens beyond `max_new_tokens`, for a thought.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [m._asdict() for m in dialogue.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,  # also sent if 1.0: some servers would use the model's own default
        "max_tokens": sampling.max_new_tokens + room,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.temperature > 0:
        body["seed"] = request_seed(sampling.seed, dialogue.draw)
    return body


def with_extra(body: dict[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with further fields; later ones take precedence, and fields that are None are left out."""
    whole = dict(body)
    for fields in more:
        whole.update(fields)
    return {name: value for name, value in whole.items() if value is not None}


def request_seed(seed: int, draw: int) -> int:
    """Return a seed per draw, within the 31 bits that every server accepts."""
    return int.from_bytes(seeded_hash(seed, draw)[:4], "big") >> 1


def wants_other_limit(said: str, body: Mapping[str, Any]) -> bool:
    """Whether a refusal asks for `max_completion_tokens` in place of `max_tokens`, as OpenAI's newer models do."""
    return "max_tokens" in body and "max_completion_tokens" in said


def other_limit(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with its limit as `max_completion_tokens`."""
    return {"max_completion_tokens" if name == "max_tokens" else name: value for name, value in body.items()}


def refused_field(said: str, body: Mapping[str, Any]) -> str:
    """Return the field that a server does not accept, or not with this value; "" if it names none."""
    if not _REFUSED.search(said):
        return ""
    named = (group for found in _NAMED.finditer(_ALTERNATIVES.split(said)[0]) for group in found.groups() if group)
    return next((name for name in named if name in body and name not in _NEEDED), "")


def sentence(text: str) -> str:
    """End a text with a full stop, unless it ends a sentence already."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def without_field(name: str) -> str:
    """Return the remedy for a field that a server refuses."""
    if name == "temperature":
        return (
            "this model samples at a fixed temperature; extra={'temperature': None, 'top_p': None} leaves the choice "
            "to it, but then greedy replies are sampled as well"
        )
    if name in ("logprobs", "top_logprobs"):
        return "use answer_by='generation'"
    if name in _KEEPING_NEUTRAL:
        return (
            "the field overrides the server's own default; name the software that runs the model with server= "
            f"(server='other' sends no such field), or leave it out with extra={{{name!r}: None}}"
        )
    return f"leave it out with extra={{{name!r}: None}}"
