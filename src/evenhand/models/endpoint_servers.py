"""Servers that fill in sampling settings of their own, and the fields that prevent it.

A request that names only temperature and top_p is not drawn from the model's own distribution everywhere: vLLM and
SGLang take missing settings from the checkpoint's generation config (`--generation-config auto`, `--sampling-defaults
model`), llama.cpp has defaults of its own (top_k 40, min_p 0.05), and transformers serve does not sample unless a
generation config sets `do_sample`. Known servers are therefore sent neutral values; others are sent none, since they
refuse fields that they do not know.
"""

from __future__ import annotations

import json
from typing import Any

from evenhand.errors import SettingsError, suggest

CONTINUING = frozenset({"vllm", "sglang"})
"""Servers, by `owned_by` in their list of models, that continue a last assistant turn if a request has
`continue_final_message` set (vLLM's ChatCompletionRequest; SGLang since its pull request 4226)."""
_PENALTIES = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
_GENERATION_CONFIG = {"do_sample": True, "top_k": 0, "repetition_penalty": 1.0}
NEUTRAL: dict[str, dict[str, Any]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, **_PENALTIES},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, **_PENALTIES},
    "llamacpp": {
        "top_k": 0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_penalty": 1.0,
        "xtc_probability": 0.0,
        "dry_multiplier": 0.0,
        **_PENALTIES,
    },
    "transformers": {"generation_config": json.dumps(_GENERATION_CONFIG)},
}
"""Fields per server that leave the model's own distribution unchanged. The names are `owned_by` in `/v1/models`,
except for `transformers serve`, which puts the model's author there: the option `server` names it."""

GGUF_FACTS = frozenset({"vocab_type", "n_vocab", "n_ctx_train", "n_embd"})
"""Fields that llama.cpp's list of models has in `meta`, also in builds under other names."""
OTHER = "other"
"""Name for a server that is sent no neutral values."""


def check_name(server: str | None) -> None:
    """Refuse an unknown name of a server's software.

    Raises:
        SettingsError: The name is unknown; the message lists the known names.
    """
    if server is not None and server not in (*NEUTRAL, OTHER):
        raise SettingsError(f"server {server!r} is not known. {suggest(str(server), (*NEUTRAL, OTHER))}")


def owner(content: bytes, model: str) -> str:
    """Return `owned_by` of a model in a server's list of models; "" if it is missing.

    Servers of one model, such as llama.cpp's, answer to any name: all that they list has then the same owner. Builds of
    llama.cpp under other names are recognised by the fields of their entries.
    """
    cards = listed(content)
    owners = {_owner(card) for card in cards.values()}
    if model in cards:
        return _owner(cards[model])
    return owners.pop() if len(owners) == 1 else ""


def _owner(card: dict[str, Any]) -> str:
    """Return a card's owner; "llamacpp" if it has the fields that only llama.cpp lists."""
    named, meta = str(card.get("owned_by") or ""), card.get("meta")
    if named not in NEUTRAL and isinstance(meta, dict) and meta.keys() >= GGUF_FACTS:
        return "llamacpp"
    return named


def listed(content: bytes) -> dict[str, dict[str, Any]]:
    """Return the entries of a list of models by name and alias; {} if it cannot be read."""
    try:
        cards = json.loads(content)["data"]
        return {str(name): card for card in cards for name in (*(card.get("aliases") or ()), card["id"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
