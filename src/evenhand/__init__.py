"""evenhand: compare social-bias mitigation methods for language models, side by side.

    import evenhand
    model = evenhand.load("Qwen/Qwen2.5-0.5B-Instruct")
    report = evenhand.compare(model, methods="none,self_debias", benchmarks="bbq", limit=600)

Everything here is imported when it is first used, so that `import evenhand` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from evenhand import proving_ground
    from evenhand.errors import EvenhandError as EvenhandError
    from evenhand.experiment.comparison import compare as compare
    from evenhand.interfaces import Benchmark as Benchmark
    from evenhand.interfaces import Choice as Choice
    from evenhand.interfaces import Dialogue as Dialogue
    from evenhand.interfaces import Mark as Mark
    from evenhand.interfaces import Measured as Measured
    from evenhand.interfaces import Message as Message
    from evenhand.interfaces import Method as Method
    from evenhand.interfaces import Metric as Metric
    from evenhand.interfaces import Model as Model
    from evenhand.interfaces import Passage as Passage
    from evenhand.interfaces import Question as Question
    from evenhand.interfaces import Reading as Reading
    from evenhand.interfaces import Reply as Reply
    from evenhand.interfaces import Sampling as Sampling
    from evenhand.interfaces import Score as Score
    from evenhand.interfaces import Tally as Tally
    from evenhand.interfaces import TrainData as TrainData
    from evenhand.interfaces import Usage as Usage
    from evenhand.interfaces import settings as settings
    from evenhand.models.loading import load as load
    from evenhand.models.loading import wrap as wrap
    from evenhand.models.mitigated import Mitigated as Mitigated
    from evenhand.report import Report as Report

_PLACES = {
    "compare": "comparison",
    "EvenhandError": "errors",
    "load": "models.loading",
    "wrap": "models.loading",
    "Mitigated": "models.mitigated",
    "Report": "report",
    **dict.fromkeys(
        (
            "Benchmark", "Choice", "Dialogue", "Mark", "Measured", "Message", "Method", "Metric", "Model", "Passage",
            "Question", "Reading", "Reply", "Sampling", "Score", "Tally", "TrainData", "Usage", "settings",
        ),
        "interfaces",
    ),
}  # fmt: skip

__all__ = ["__version__", "proving_ground", *_PLACES]


def __getattr__(name: str) -> Any:
    if name == "proving_ground":
        return importlib.import_module("evenhand.proving_ground")
    if name not in _PLACES:
        raise AttributeError(f"module 'evenhand' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"evenhand.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
