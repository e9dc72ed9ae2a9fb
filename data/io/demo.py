"""Where the demo's files lie: benchmarks in the official formats, and the demo models."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "demo"
BENCHMARKS = FOLDER / "benchmarks"
MODELS = FOLDER / "models"


BBQ_FOLDERS: dict[str, tuple[str, ...]] = {
    "demo": ("bbq",),
    "demo-x": ("bbq", "bbq_x/english"),
    "demo-x-cipher": ("bbq_x/cipher",),
}
"""Folders of BBQ-type questions by source: for all demo models, and for demo-x in its two languages."""


def demo_folder(benchmark: str) -> Path:
    """Where the demo files of a benchmark lie.

    bbq, bbq_x, difference_awareness, holisticbias, mmlu, gpqa, ifeval, bscore, label_bias, stereoset, crows_pairs,
    winogender, winobias, redditbias, pronouns, perplexity; and adjudication, whose instructions no benchmark asks.
    """
    return BENCHMARKS / benchmark
