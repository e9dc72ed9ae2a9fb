"""Names of the losses that are summed. Apart from the losses, so that settings are checked without loading torch."""

from __future__ import annotations

PAIR_TERMS = ("lm", "swapped_lm", "dpo", "npo", "simnpo", "ga", "margin", "gap")
"""Losses of pairs."""
TEXT_TERMS = ("retain_lm", "retain_kl")
"""Losses of texts that are to stay."""
