"""What methods that train share: held-out items, losses without all logits, the loop, adapters, steps of a training.

For a causal language model: `layout_of` and `finish_of` once; then `pack` the sequences of a step, and `causal_lm_loss`
of each batch. `TrainedMethod` is the base class of methods that train. Names are imported when they are first used.

It may import `models` and the packages below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from evenhand.training.causal import causal_lm_loss, finish_of
    from evenhand.training.divergences import kl
    from evenhand.training.hidden import final_hidden
    from evenhand.training.holding_out import hold_out
    from evenhand.training.losses import chunked_cross_entropy, chunked_kl, chunked_sum
    from evenhand.training.packing import Batch, Layout, layout_of, pack
    from evenhand.training.trained_method import Fitted, TrainedMethod
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "evenhand.training.causal": ["causal_lm_loss", "finish_of"],
            "evenhand.training.divergences": ["kl"],
            "evenhand.training.hidden": ["final_hidden"],
            "evenhand.training.holding_out": ["hold_out"],
            "evenhand.training.losses": ["chunked_cross_entropy", "chunked_kl", "chunked_sum"],
            "evenhand.training.packing": ["Batch", "Layout", "layout_of", "pack"],
            "evenhand.training.trained_method": ["Fitted", "TrainedMethod"],
        },
    )

__all__ = [
    "Batch",
    "Fitted",
    "Layout",
    "TrainedMethod",
    "causal_lm_loss",
    "chunked_cross_entropy",
    "chunked_kl",
    "chunked_sum",
    "final_hidden",
    "finish_of",
    "hold_out",
    "kl",
    "layout_of",
    "pack",
]
