"""Names of the losses that are summed, separate from the losses so that settings are checked without torch."""

from __future__ import annotations

PAIR_TERMS = ("lm", "swapped_lm", "dpo", "npo", "simnpo", "ga", "margin", "gap")
"""Losses on pairs."""
TEXT_TERMS = ("retain_lm", "retain_kl")
"""Losses on texts to retain."""
