"""Render a page about the adjudication: who answered, who judged how, examples, abstentions, cost.

Answers come from models and prompts from files: everything is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.core.text_output import UNKNOWN, duration, number, size, visible
from evenhand.methods.adjudication._dataset import Rows

DEMO_LABEL = "demo model, planted bias"
EXAMPLES = 12


def render(facts: Mapping[str, Any], rows: Rows, about: Mapping[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        facts: The result of `evenhand.methods.adjudication._rounds.Adjudication.facts`.
        rows: The data set.
        about: Facts of the run: spec, seed, demo.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evenhand.methods.adjudication"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    environment.filters |= {"number": number, "seconds": duration, "visible": visible, "size": memory}
    found = facts["adjudication"]
    return environment.get_template("adjudication.html.j2").render(
        found=found,
        about=about,
        demo=DEMO_LABEL if about["demo"] else "",
        judges=[_of_judge(m["name"], found, rows) for m in found["members"] if m["judges"]],
        authors=[_of_author(m["name"], rows) for m in found["members"] if m["writes"]],
        taken=_examples(rows.of["preferences"] or rows.of["sft"]),
        abstained=_examples(rows.of["abstentions"]),
    )


def write(path: Path, facts: Mapping[str, Any], rows: Rows, about: Mapping[str, Any]) -> Path:
    """Write the page."""
    path.write_text(render(facts, rows, about), encoding="utf-8")
    return path


def memory(count_of_bytes: int) -> str:
    """Format bytes with a unit; a dash if nothing was measured."""
    return size(count_of_bytes) if count_of_bytes else UNKNOWN


def _of_judge(name: str, found: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """Summarise how a judge voted: mean, spread, and correlation of its votes with an answer's length."""
    votes = [r for r in rows.of["judgements"] if r["judge"] == name]
    values = [r["vote_bias"] for r in votes]
    return {
        "name": name,
        "votes": len(values),
        "mean": _mean(values),
        "deviation": _deviation(values),
        "mass": _mean([r["vote_mass"] for r in votes if not math.isnan(r["vote_mass"])]),
        "length": rank_correlation(values, [len(r["answer"]) for r in votes]),
        "weights": [r["weights"].get(name) for r in found["rounds"]],
    }


def _of_author(name: str, rows: Rows) -> dict[str, Any]:
    """Summarise how a member's answers were rated."""
    votes = [r for r in rows.of["judgements"] if r["author"] == name]
    each = {(r["round"], r["id"], r["answer"], r["revised"]): r for r in votes}.values()
    taken = [r for r in rows.of["sft"] if r["author"] == name]
    return {
        "name": name,
        "answers": len(each),
        "taken": len(taken),
        "bias": _mean([r["bias"] for r in each]),
        "helpfulness": _mean([r["helpfulness"] for r in each if not math.isnan(r["helpfulness"])]),
        "refusal": _mean([r["refusal"] for r in each if not math.isnan(r["refusal"])]),
    }


def _examples(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pick a few rows, spread over all rather than the first ones of one axis."""
    step = max(1, len(rows) // EXAMPLES)
    return list(rows[::step][:EXAMPLES])


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Compute Spearman's rho; nan if one of them does not vary."""
    from scipy.stats import rankdata

    if len(a) < 3:
        return math.nan
    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    down = float((x @ x) * (y @ y)) ** 0.5
    return float(x @ y) / down if down > 0 else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return _mean([(v - mean) ** 2 for v in values]) ** 0.5 if values else math.nan
