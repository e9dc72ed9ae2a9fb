"""Which kernel attends to a tree of tokens: the gathered one, or one of two for GPUs that are chosen by name.

All give the same up to rounding. Which is fastest depends on the card; `benchmarks/gpu.py` measures them.
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
"""Padded groups of gathered keys; FlexAttention with a block mask; FlashAttention for paths and runs, then merged."""

Known = Callable[[int], KeysValues]
"""Gives a layer's keys and values of the known nodes of a pack, in their order."""

_CHOSEN: ContextVar[str] = ContextVar("tree_kernel", default=GATHERED)


class Tree(Attention, Protocol):
    """Attention over one pack."""

    @property
    def made(self) -> dict[int, KeysValues]:
        """Per layer keys and values by node, where they are kept."""


@contextmanager
def using(name: str) -> Iterator[None]:
    """Attend to trees by one of the `KERNELS` within the block."""
    token = _CHOSEN.set(checked(name))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def checked(name: str) -> str:
    """The name of a kernel.

    Raises:
        SettingsError: There is none of that name.
    """
    if name not in KERNELS:
        raise SettingsError(f"tree_kernel {name!r} does not exist: use one of {', '.join(KERNELS)}")
    return name


def tree_of(pack: Pack, known: Known | None = None, *, keep: bool = False) -> Tree:
    """How a pack is attended to, by the kernel that is chosen; with known nodes always by the gathered one.

    Args:
        pack: The tree.
        known: Gives the keys and values of its known nodes; None where it has none.
        keep: Whether all keys and values are kept in `made`.
    """
    name = _CHOSEN.get()
    if name == FLEX and not pack.known:
        return FlexTree(pack, keep=keep)
    if name == CASCADE and not pack.known:
        return CascadeTree(pack, keep=keep)
    return TreeAttention(pack, known, keep=keep)
