"""Refuse sizes in a folder's config.json that its weights cannot have, before a module is built from them.

A module is built from its configuration before weights are read: a billion layers, or lists of that length,
would exhaust the memory. Every dimension of a model is a dimension of some weight, which takes at least four bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.errors import EvenhandError
from evenhand.models.json_files import read_json

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
SMALLEST = 2**24
"""Minimum number of bytes of weights assumed, so that folders without weights can be read."""
LAYERS_LIMIT = 10_000
POSITIONS_LIMIT = 10**8
"""Maximum number of positions; they need no weights if they are computed, like rotary ones."""
LABELS_LIMIT = 10**6
"""Maximum number of labels; each is named before a weight is read, which takes seconds for a million."""
_LAYERS = re.compile(r"(num_(hidden_|encoder_|decoder_)?|n_|encoder_|decoder_)layers?")
_POSITIONS = re.compile(r"(\w*max_position\w*|n_positions|n_ctx|max_seq(uence)?_len(gth)?)")
_LABELS = re.compile(r"_?num_labels")
_DIMENSIONS = re.compile(
    r"(\w*vocab_size|(\w+_)?hidden_sizes?|n_embd|d_model|d_ff|d_kv|n_inner|\w*(intermediate|embedding)_size|\w*ffn_dim"
    r"|(\w+_)?head_dim|\w*(num|n)_(attention_|key_value_|kv_|query_)?heads?|\w*embed_proj_dim|\w*(num|n)_\w*experts"
    r"|\w*num_buckets|(\w+_)?state_size)"
)
_WIDTHS = ("hidden_size", "d_model", "n_embd")
_NEVER_NEGATIVE = ("vocab_size", *_WIDTHS)


def refuse_impossible(folder: Path) -> None:
    """Refuse a folder whose config.json has sizes that are impossible for the size of its weights.

    Args:
        folder: Folder of a model; one without config.json is accepted.

    Raises:
        EvenhandError: A size is impossible (named with its limit and the weights' bytes), or the file is unreadable.
    """
    file = folder / "config.json"
    if not file.is_file():
        return
    held = sum(weights.stat().st_size for pattern in WEIGHTS for weights in folder.rglob(pattern) if weights.is_file())
    for section in _sections(read_json(file)):
        for name, size in _numbers(section):
            limit = _limit(name, section, 2 * max(held, SMALLEST))
            if size > limit or (size < 0 and name in _NEVER_NEGATIVE):
                raise EvenhandError(
                    f"{file} has {name} {size:,.0f}, which is not possible: its weights have {held:,} bytes, enough "
                    f"for 0 to {limit:,}. Get config.json and the weights again from where they were published"
                )


def _limit(name: str, section: Mapping[str, Any], weights: int) -> int:
    """Return the largest possible value of this size, given the maximum number of weights."""
    if _POSITIONS.fullmatch(name):
        return POSITIONS_LIMIT
    if _LABELS.fullmatch(name):
        return LABELS_LIMIT
    wide = max((size for key, size in _numbers(section) if key in _WIDTHS), default=1)
    if _LAYERS.fullmatch(name) or name.endswith("experts"):
        each = int(min(weights, max(weights / max(wide, 1), 1)))
        return min(LAYERS_LIMIT, each) if _LAYERS.fullmatch(name) else each
    return weights


def _numbers(section: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield sizes by name, also from lists with one per layer; flags and texts are left to transformers."""
    for name, value in section.items():
        if any(kind.fullmatch(name) for kind in (_LAYERS, _POSITIONS, _LABELS, _DIMENSIONS)):
            for size in value if isinstance(value, list) else [value]:
                if isinstance(size, int | float) and not isinstance(size, bool):
                    yield name, size


def _sections(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the configuration and the nested ones of a model's parts; `read_json` bounds their depth."""
    yield content
    for part in content.values():
        if isinstance(part, Mapping):
            yield from _sections(part)
