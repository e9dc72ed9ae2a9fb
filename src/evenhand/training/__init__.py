"""What methods that train share: losses without full logits, and rows of many sequences without padding.

For a causal language model: `layout_of` and `finish_of` once; then `pack` the sequences of a step, and `causal_lm_loss`
of each batch.

It may import `models` and the packages below it.
"""

from evenhand.training.causal import causal_lm_loss, finish_of
from evenhand.training.hidden import final_hidden
from evenhand.training.losses import chunked_cross_entropy, chunked_kl, chunked_sum
from evenhand.training.packing import Batch, Layout, layout_of, pack

__all__ = [
    "Batch",
    "Layout",
    "causal_lm_loss",
    "chunked_cross_entropy",
    "chunked_kl",
    "chunked_sum",
    "final_hidden",
    "finish_of",
    "layout_of",
    "pack",
]
