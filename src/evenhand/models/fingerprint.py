"""Hash of everything that decides a model's answers; never a name.

A folder that nobody touched is hashed by its files' bytes, which is fast (`evenhand.core.hashing`). Once the weights
were handed out, or when the model came from memory, the tensors themselves are hashed (`evenhand.models.kept_hash` says
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
    """Hash of the tensors, the configuration, the adapters' state and the tokenizer in memory."""
    return of_content(content_of(module), module, of_tokenizer(tokenizer))


def content_of(module: torch.nn.Module, threads: int | None = None) -> list[Any]:
    """Name, dtype, shape and hash of every tensor of a module's state; this reads all weights.

    Args:
        module: Its parameters and persistent buffers are read; see `buffers_of` for the others.
        threads: That hash, by default one for each processor; with 1 the calling thread does.
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
    """Hashes of the tensors that accelerate offloads, layer by layer: of their values, as those of any others."""
    wanted, found = set(names), dict[str, str]()
    for path, part in module.named_modules(remove_duplicate=False):
        own = {f"{path}.{name}".lstrip("."): name for name in (*part._parameters, *part._buffers)}
        if wanted & own.keys():
            with offload_support.filled_in(part):
                here = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
                found |= {full: _tensor_hash(here[own[full]].detach()) for full in wanted & own.keys()}
    return found


def buffers_of(module: torch.nn.Module) -> list[Any]:
    """Name, dtype, shape and hash of the buffers that are not saved, such as the frequencies of rotary embeddings.

    They follow from the configuration, to rounding on different devices, so untouched ones are no part of a
    fingerprint. Left out are those that transformers itself sets anew as it answers: the frequencies of the rotary
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
    """The same as they were before anybody could change them, as far as a module tells.

    transformers keeps a copy of the frequencies that follow from the configuration (`original_inv_freq`), which counts
    instead of frequencies that were changed earlier; other buffers count as they are.
    """
    found = {name: (name, *rest) for name, *rest in buffers_of(module)}
    kept = {name.replace("original_", ""): rest for name, *rest in found.values() if "original_" in name}
    return [*(found | {name: (name, *rest) for name, rest in kept.items() if name in found}).values()]


def of_content(content: list[Any], module: PreTrainedModel, tokenizer: str) -> str:
    """Hash of tensors that are hashed already, and of what is read anew: the configuration and the adapters' state.

    Args:
        content: See `content_of`.
        module: Of which the content is.
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
    """Adapter switches are no tensors, yet they decide the answers."""
    return [
        (name, m.active_adapters, getattr(m, "disable_adapters", False), m.merged_adapters, getattr(m, "scaling", None))
        for name, m in module.named_modules()
        if hasattr(m, "merged_adapters")
    ]


def of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of the vocabulary, the merges, the special tokens and the chat template.

    Padding and truncation are no part of it: transformers sets them anew at every call, so they are the last caller's.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and (backend.padding is not None or backend.truncation is not None):
        backend = copy.deepcopy(backend)
        backend.no_padding()
        backend.no_truncation()
    content = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return digest(content, tokenizer.special_tokens_map, tokenizer.chat_template)
