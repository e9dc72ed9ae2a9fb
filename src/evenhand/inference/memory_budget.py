"""How much is run at once: from the free memory of the machine that a model lies on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from evenhand.inference.scoring import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARE = 0.25
"""Part of the free memory that one pack of nodes may take."""
KEPT = 0.125
"""Part of the free memory that a conversation may keep."""
MOST_NODES = {"cpu": 4_096, "other": 65_536}
"""More makes nothing faster: on a CPU the sharing that is lost at the borders of packs is below one per cent."""
LEAST_NODES = 256
ROWS = 400_000_000
"""Bytes that keys and values of rows which are continued may take on a CPU, where more rows make nothing faster."""


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; where a device does not tell, that of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available)


def pack_nodes(module: PreTrainedModel) -> int:
    """Nodes of a tree that are read at once."""
    device = input_device(module)
    fitting = int(free_bytes(device) * SHARE) // node_bytes(module)
    return max(LEAST_NODES, min(MOST_NODES["cpu" if device.type == "cpu" else "other"], fitting))


def row_tokens(module: PreTrainedModel) -> int:
    """Tokens of rows that are continued side by side."""
    device = input_device(module)
    room = int(free_bytes(device) * SHARE)
    return max(LEAST_NODES, (min(room, ROWS) if device.type == "cpu" else room) // token_bytes(module))


def kept_bytes(module: PreTrainedModel) -> int:
    """What keys and values of a conversation may take."""
    return int(free_bytes(input_device(module)) * KEPT)


def node_bytes(module: PreTrainedModel) -> int:
    """What a node takes while it is read, roughly: a layer's activations, and keys and values of all layers."""
    config: Any = module.config.get_text_config()
    hidden = int(getattr(config, "hidden_size", None) or 4096)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    return torch.finfo(module.dtype).bits // 8 * (10 * hidden + 3 * inner) + token_bytes(module)


def token_bytes(module: PreTrainedModel) -> int:
    """Keys and values of one token in all layers."""
    config: Any = module.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or int(config.hidden_size) // heads)
    return torch.finfo(module.dtype).bits // 8 * 2 * int(config.num_hidden_layers) * shared * width
