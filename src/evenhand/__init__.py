"""evenhand: compare social-bias mitigation methods for language models, side by side.

    import evenhand
    model = evenhand.load("Qwen/Qwen2.5-0.5B-Instruct")
    report = evenhand.compare(model, methods="none,self_debias", benchmarks="bbq", limit=600)

Everything here is imported when it is first used, so that `import evenhand` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core import moved
from evenhand.core.lazy_names import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from evenhand import evaluation as evaluation
    from evenhand import methods as methods
    from evenhand import metrics as metrics
    from evenhand import proving_ground as proving_ground
    from evenhand.core.catalogue import list_benchmarks as list_benchmarks
    from evenhand.core.catalogue import list_methods as list_methods
    from evenhand.errors import EvenhandError as EvenhandError
    from evenhand.experiment.comparison import compare as compare
    from evenhand.experiment.spillover import spillover as spillover
    from evenhand.experiment.sweep import sweep as sweep
    from evenhand.interfaces import Benchmark as Benchmark
    from evenhand.interfaces import Choice as Choice
    from evenhand.interfaces import Dialogue as Dialogue
    from evenhand.interfaces import Grade as Grade
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
    from evenhand.interfaces import TrainingRecord as TrainingRecord
    from evenhand.interfaces import Usage as Usage
    from evenhand.interfaces import settings as settings
    from evenhand.models.loading import load as load
    from evenhand.models.loading import wrap as wrap
    from evenhand.models.mitigated import Mitigated as Mitigated
    from evenhand.report import Report as Report
else:
    _PLACES = {
        "evenhand.core.catalogue": ["list_benchmarks", "list_methods"],
        "evenhand.errors": ["EvenhandError"],
        "evenhand.evaluation": [],
        "evenhand.experiment.comparison": ["compare"],
        "evenhand.experiment.spillover": ["spillover"],
        "evenhand.experiment.sweep": ["sweep"],
        "evenhand.interfaces": [
            "Benchmark",
            "Choice",
            "Dialogue",
            "Grade",
            "Measured",
            "Message",
            "Method",
            "Metric",
            "Model",
            "Passage",
            "Question",
            "Reading",
            "Reply",
            "Sampling",
            "Score",
            "Tally",
            "TrainData",
            "TrainingRecord",
            "Usage",
            "settings",
        ],
        "evenhand.methods": [],
        "evenhand.metrics": [],
        "evenhand.models.loading": ["load", "wrap"],
        "evenhand.models.mitigated": ["Mitigated"],
        "evenhand.proving_ground": [],
        "evenhand.report": ["Report"],
    }
    __getattr__, __dir__ = lazy_names(__name__, _PLACES, old={"Mark": "evenhand.interfaces"})
    __all__ = ["__version__", *__dir__()]

moved.install()
