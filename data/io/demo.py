"""Where the demo's files lie: benchmarks in the official formats, and the demo models."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "demo"
BENCHMARKS = FOLDER / "benchmarks"
MODELS = FOLDER / "models"


def demo_folder(benchmark: str) -> Path:
    """Where the demo files of a benchmark lie.

    bbq, holisticbias, mmlu, gpqa, ifeval, bscore, label_bias, stereoset, crows_pairs, winogender, winobias, redditbias,
    pronouns, perplexity; and adjudication, whose instructions no benchmark asks.
    """
    return BENCHMARKS / benchmark
