"""CaBBQ (Ruiz-Fernandez et al. 2025, arXiv 2507.11216; langtech-bsc/EsBBQ-CaBBQ): EsBBQ in Catalan."""

from __future__ import annotations

from evenhand.core.word_lists import listed
from evenhand.data import esbbq
from evenhand.data.bias_rows import BiasRows

DATASET = esbbq.DATASET._replace(hub="BSC-LT/CaBBQ", benchmark="cabbq")
"""In the same folder as EsBBQ."""
COUNTS = {**esbbq.COUNTS, "PhysicalAppearance": 3552}
"""Rows per category of the files at commit ee2e0f6."""
WORDINGS = listed(
    """
    No hi ha prou informació, No hi ha informació suficient, No ho sé, No sé, Falta informació, No es pot respondre,
    No se sap, No es pot saber, No es pot determinar
    """
)
"""The Catalan wordings that lm-evaluation-harness offers (lm_eval/tasks/cabbq), in its order."""


def load(source: str, *, partial: bool = False) -> BiasRows:
    """Read CaBBQ; see `evenhand.data.esbbq.load_language`."""
    return esbbq.load_language(DATASET, source, "ca", WORDINGS, COUNTS, partial=partial)
