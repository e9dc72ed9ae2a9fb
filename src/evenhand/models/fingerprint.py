"""Hash of everything that decides a model's answers; never a name.

A folder that nobody touched is hashed by its files' bytes, which is fast. Once the weights were handed out, or when the
model came from memory, the tensors themselves are hashed each time, so that no edit goes unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTENT = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Files of a model folder that decide what it answers."""


def digest(*parts: Any) -> str:
    """Short hash (128 bits) of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def of_folder(folder: Path) -> str:
    """Hash of the content files directly in `folder`."""
    files = sorted({f for pattern in CONTENT for f in folder.glob(pattern) if f.is_file()})
    return digest([(f.name, _file_hash(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns)) for f in files])


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, modified: int) -> str:  # size and time only make the cache key
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def of_weights(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of the tensors, the configuration, the adapters' state and the tokenizer in memory."""
    import torch

    tensors = {name: t.detach() for name, t in sorted(module.state_dict().items()) if isinstance(t, torch.Tensor)}
    keys = {name: (t.data_ptr(), t.dtype, t.shape, t.stride()) for name, t in tensors.items()}
    once = {keys[name]: t for name, t in tensors.items()}  # tied weights have two names
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = dict(zip(once, pool.map(_tensor_hash, once.values()), strict=True))
    content = [(name, str(t.dtype), tuple(t.shape), hashes[keys[name]]) for name, t in tensors.items()]
    config = {k: v for k, v in module.config.to_dict().items() if not k.startswith("_")}
    ends = getattr(getattr(module, "generation_config", None), "eos_token_id", None)  # they end replies
    return digest(content, config, ends, _adapters(module), of_tokenizer(tokenizer))


def _tensor_hash(tensor: torch.Tensor) -> str:
    import torch

    data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(data.numpy().data).hexdigest()


def _adapters(module: torch.nn.Module) -> list[Any]:
    """Adapter switches are no tensors, yet they decide the answers."""
    return [
        (name, m.active_adapters, getattr(m, "disable_adapters", False), m.merged_adapters, getattr(m, "scaling", None))
        for name, m in module.named_modules()
        if hasattr(m, "merged_adapters")
    ]


def of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of the vocabulary, the merges, the special tokens and the chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return digest(content, tokenizer.special_tokens_map, tokenizer.chat_template)
