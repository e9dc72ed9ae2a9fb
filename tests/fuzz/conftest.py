"""The fuzzers need hypothesis, which the extra `dev` brings along."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("hypothesis") else ["test_readers.py", "test_parsers.py"]


def pytest_report_header() -> str:
    """Say that tests are left out, as these would otherwise be missed by nobody."""
    return "" if find_spec("hypothesis") else "tests/fuzz: not run, as hypothesis is not installed"
