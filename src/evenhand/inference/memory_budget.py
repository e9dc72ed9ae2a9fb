"""Determine how much is run at once, from the free memory of the device of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from evenhand.inference.scoring import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARE = 0.25
"""Fraction of the free memory that one pack of nodes may take."""
KEPT = 0.125
"""Fraction of the free memory that the KV cache of a conversation may take."""
MOST_NODES = {"cpu": 4_096, "other": 65_536}
"""Maximum number of nodes in a pack; more is not faster: on a CPU pack borders lose less than 1% of the sharing."""
LEAST_NODES = 256
ROWS = 400_000_000
"""Maximum bytes of keys and values of continued rows on a CPU, where more rows are not faster."""


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes; that of the machine for devices other than CUDA."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available)


def pack_nodes(module: PreTrainedModel) -> int:
    """Return the number of tree nodes that are read at once."""
    device = input_device(module)
    fitting = int(free_bytes(device) * SHARE) // node_bytes(module)
    return max(LEAST_NODES, min(MOST_NODES["cpu" if device.type == "cpu" else "other"], fitting))


def row_tokens(module: PreTrainedModel) -> int:
    """Return the total number of tokens of rows that are continued together."""
    device = input_device(module)
    room = int(free_bytes(device) * SHARE)
    return max(LEAST_NODES, (min(room, ROWS) if device.type == "cpu" else room) // token_bytes(module))


def kept_bytes(module: PreTrainedModel) -> int:
    """Return the bytes that keys and values of a conversation may take."""
    return int(free_bytes(input_device(module)) * KEPT)


def node_bytes(module: PreTrainedModel) -> int:
    """Estimate the bytes of a node while it is read: a layer's activations, and keys and values of all layers."""
    config: Any = module.config.get_text_config()
    hidden = int(getattr(config, "hidden_size", None) or 4096)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    return torch.finfo(module.dtype).bits // 8 * (10 * hidden + 3 * inner) + token_bytes(module)


def token_bytes(module: PreTrainedModel) -> int:
    """Return the bytes of keys and values of one token in all layers."""
    config: Any = module.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or int(config.hidden_size) // heads)
    return torch.finfo(module.dtype).bits // 8 * 2 * int(config.num_hidden_layers) * shared * width
