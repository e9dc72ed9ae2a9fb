"""For plugin authors: tiny models, and the conformance suites that every built-in method and benchmark passes.

Example:
    from evenhand.testing import check_method, tiny_model
    def test_my_method():
        check_method(MyMethod())
"""

from __future__ import annotations

from evenhand.experiment.contracts import NonconformingError
from evenhand.models.tiny import tiny_model
from evenhand.testing.benchmark_checks import check_benchmark
from evenhand.testing.method_checks import check_method
from evenhand.testing.scripted import ScriptedModel, questions

__all__ = ["NonconformingError", "ScriptedModel", "check_benchmark", "check_method", "questions", "tiny_model"]
