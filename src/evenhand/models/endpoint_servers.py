"""Servers that fill in sampling settings of their own, and what keeps them from it.

A request that names only temperature and top_p is not drawn from the model's own distribution everywhere: vLLM and
SGLang take what is missing from the checkpoint's generation config (`--generation-config auto`, `--sampling-defaults
model`), llama.cpp has defaults of its own (top_k 40, min_p 0.05), and transformers serve draws nothing at all unless a
generation config says `do_sample`. So known servers are sent neutral values; others refuse fields that they do not
know, and are sent none.
"""

from __future__ import annotations

import json
from typing import Any

from evenhand.errors import SettingsError, suggest

CONTINUING = frozenset({"vllm", "sglang"})
"""Servers, by what their list of models says in `owned_by`, that continue a last assistant turn where a request says
`continue_final_message` (vLLM's ChatCompletionRequest; SGLang since its pull request 4226)."""
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
"""By server, fields that leave the model's own distribution alone. The names are what `/v1/models` says in `owned_by`,
but for `transformers serve`, which puts the model's author there: it is named by the option `server`."""

GGUF_FACTS = frozenset({"vocab_type", "n_vocab", "n_ctx_train", "n_embd"})
"""What llama.cpp's list of models has in `meta` of each, whatever name it goes by."""
OTHER = "other"
"""A server that is sent no neutral values."""


def check_name(server: str | None) -> None:
    """Refuse the name of a server's software that is not known.

    Raises:
        SettingsError: The message lists the known names.
    """
    if server is not None and server not in (*NEUTRAL, OTHER):
        raise SettingsError(f"server {server!r} is not known. {suggest(str(server), (*NEUTRAL, OTHER))}")


def owner(content: bytes, model: str) -> str:
    """What a server's list of models says in `owned_by` of this one; "" where it says nothing.

    Servers of one model, such as llama.cpp's, answer to any name: all that they list has then the same owner. Builds of
    llama.cpp under other names are recognised by what they list of a model.
    """
    cards = listed(content)
    owners = {_owner(card) for card in cards.values()}
    if model in cards:
        return _owner(cards[model])
    return owners.pop() if len(owners) == 1 else ""


def _owner(card: dict[str, Any]) -> str:
    """Who a card says that a model is owned by; llama.cpp where it has what only llama.cpp lists."""
    named, meta = str(card.get("owned_by") or ""), card.get("meta")
    if named not in NEUTRAL and isinstance(meta, dict) and meta.keys() >= GGUF_FACTS:
        return "llamacpp"
    return named


def listed(content: bytes) -> dict[str, dict[str, Any]]:
    """The entries of a list of models by name and alias; {} where it cannot be read."""
    try:
        cards = json.loads(content)["data"]
        return {str(name): card for card in cards for name in (*(card.get("aliases") or ()), card["id"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
