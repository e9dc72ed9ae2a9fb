"""Select the tree attention kernel: the gathered one, or one of two for GPUs that are chosen by name.

All give the same results up to rounding. Which is fastest depends on the card; `benchmarks/gpu.py` measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from evenhand.errors import SettingsError
from evenhand.inference.attention import Attention
from evenhand.inference.cascade_tree import CascadeTree
from evenhand.inference.flex_tree import FlexTree
from evenhand.inference.prefix_trie import Pack
from evenhand.inference.tree_attention import KeysValues, TreeAttention

GATHERED, FLEX, CASCADE = "gathered", "flex", "cascade"
KERNELS = (GATHERED, FLEX, CASCADE)
"""Kernels: padded groups of gathered keys, FlexAttention with a block mask, or FlashAttention in two merged parts."""

Known = Callable[[int], KeysValues]
"""Returns a layer's keys and values of the known nodes of a pack, in order."""

_CHOSEN: ContextVar[str] = ContextVar("tree_kernel", default=GATHERED)


class Tree(Attention, Protocol):
    """Attention over one pack."""

    @property
    def made(self) -> dict[int, KeysValues]:
        """Keys and values by node, for each layer, if they are kept."""


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use one of the `KERNELS` for trees within the block."""
    token = _CHOSEN.set(checked(name))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def checked(name: str) -> str:
    """Return the name of a kernel, if it exists.

    Raises:
        SettingsError: There is no kernel of that name.
    """
    if name not in KERNELS:
        raise SettingsError(f"tree_kernel {name!r} does not exist: use one of {', '.join(KERNELS)}")
    return name


def tree_of(pack: Pack, known: Known | None = None, *, keep: bool = False) -> Tree:
    """Return the attention over a pack by the chosen kernel; with known nodes it is always the gathered one.

    Args:
        pack: The tree.
        known: Returns the keys and values of its known nodes; None if it has none.
        keep: Whether all keys and values are kept in `made`.
    """
    name = _CHOSEN.get()
    if name == FLEX and not pack.known:
        return FlexTree(pack, keep=keep)
    if name == CASCADE and not pack.known:
        return CascadeTree(pack, keep=keep)
    return TreeAttention(pack, known, keep=keep)
