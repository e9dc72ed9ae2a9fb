"""The fingerprint: a hash of everything that determines a model's answers, never of a name.

For unchanged folders the bytes of the files are hashed, which is fast (`evenhand.core.hashing`). Once the weights
were handed out, or for a model from memory, the tensors themselves are hashed (`evenhand.models.kept_hash` decides
how often).
"""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from evenhand.core.hashing import bytes_hash, digest
from evenhand.inference import offload_support

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def of_weights(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash the tensors, the configuration, the adapters' state and the tokenizer in memory."""
    return of_content(content_of(module), module, of_tokenizer(tokenizer))


def content_of(module: torch.nn.Module, threads: int | None = None) -> list[Any]:
    """Return name, dtype, shape and hash of every tensor of a module's state; this reads all weights.

    Args:
        module: Module whose parameters and persistent buffers are read; see `buffers_of` for the others.
        threads: Number of hashing threads, by default one per processor; with 1 the calling thread does the work.
    """
    import torch

    tensors = {name: t.detach() for name, t in sorted(module.state_dict().items()) if isinstance(t, torch.Tensor)}
    keys = {name: (t.data_ptr(), t.dtype, t.shape, t.stride()) for name, t in tensors.items()}
    once = {keys[name]: t for name, t in tensors.items() if t.device.type != "meta"}  # tied weights have two names
    elsewhere = _offloaded_content(module, [name for name, t in tensors.items() if t.device.type == "meta"])
    if threads == 1:
        hashes = {key: _tensor_hash(t) for key, t in once.items()}
    else:
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            hashes = dict(zip(once, pool.map(_tensor_hash, once.values()), strict=True))
    return [
        (name, str(t.dtype), tuple(t.shape), elsewhere[name] if name in elsewhere else hashes[keys[name]])
        for name, t in tensors.items()
    ]


def _offloaded_content(module: torch.nn.Module, names: list[str]) -> dict[str, str]:
    """Hash the values of tensors that accelerate offloads, layer by layer."""
    wanted, found = set(names), dict[str, str]()
    for path, part in module.named_modules(remove_duplicate=False):
        own = {f"{path}.{name}".lstrip("."): name for name in (*part._parameters, *part._buffers)}
        if wanted & own.keys():
            with offload_support.filled_in(part):
                here = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
                found |= {full: _tensor_hash(here[own[full]].detach()) for full in wanted & own.keys()}
    return found


def buffers_of(module: torch.nn.Module) -> list[Any]:
    """Return name, dtype, shape and hash of the buffers that are not saved, such as rotary frequencies.

    They follow from the configuration, up to rounding on different devices, so unchanged ones are not part of a
    fingerprint. Buffers that transformers itself recomputes while answering are left out: the frequencies of the rotary
    types "dynamic" and "longrope" (`dynamic_rope_update` in transformers/modeling_rope_utils.py).
    """
    return [
        (f"{path}.{name}".lstrip("."), str(b.dtype), tuple(b.shape), _tensor_hash(b.detach()))
        for path, m in sorted(module.named_modules())
        if not any(kind in str(getattr(m, "rope_type", "")) for kind in ("dynamic", "longrope"))
        for name, b in m.named_buffers(recurse=False)
        if name in m._non_persistent_buffers_set and b.device.type != "meta"
    ]


def given_buffers(module: torch.nn.Module) -> list[Any]:
    """Return `buffers_of` a module before any change, as far as the module has a record of it.

    transformers keeps a copy of the frequencies that follow from the configuration (`original_inv_freq`), which is used
    in place of frequencies that were changed earlier; other buffers are taken as they are.
    """
    found = {name: (name, *rest) for name, *rest in buffers_of(module)}
    kept = {name.replace("original_", ""): rest for name, *rest in found.values() if "original_" in name}
    return [*(found | {name: (name, *rest) for name, rest in kept.items() if name in found}).values()]


def of_content(content: list[Any], module: PreTrainedModel, tokenizer: str) -> str:
    """Hash tensors by their hashes, along with what is read again: the configuration and the adapters' state.

    Args:
        content: See `content_of`.
        module: Module that the content belongs to.
        tokenizer: See `of_tokenizer`.
    """
    config = {k: v for k, v in module.config.to_dict().items() if not k.startswith("_")}
    ends = getattr(getattr(module, "generation_config", None), "eos_token_id", None)  # they end replies
    return digest(content, config, ends, _adapters(module), tokenizer)


def _tensor_hash(tensor: torch.Tensor) -> str:
    import torch

    data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
    return bytes_hash(data.numpy().data)


def _adapters(module: torch.nn.Module) -> list[Any]:
    """Return the adapters' switches, which are not tensors but affect the answers."""
    return [
        (name, m.active_adapters, getattr(m, "disable_adapters", False), m.merged_adapters, getattr(m, "scaling", None))
        for name, m in module.named_modules()
        if hasattr(m, "merged_adapters")
    ]


def of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash the vocabulary, the merges, the special tokens and the chat template.

    Padding and truncation are left out: transformers sets them at every call, so they are those of the last caller.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and (backend.padding is not None or backend.truncation is not None):
        backend = copy.deepcopy(backend)
        backend.no_padding()
        backend.no_truncation()
    content = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return digest(content, tokenizer.special_tokens_map, tokenizer.chat_template)
