"""Colours of the figures and tables of a report."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can distinguish; black is the last colour."""
JUDGED = {True: "green", False: "red", None: ""}
"""Terminal styles of numbers that a test shows to be better or worse."""
