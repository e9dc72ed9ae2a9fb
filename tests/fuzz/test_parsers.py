"""Whatever a model writes or somebody types is parsed, or refused in evenhand's own words."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import inputs
from tests.fuzz.parsers import parsers, strategy

PARSERS = parsers()


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_text_is_parsed_or_refused(name: str, data: st.DataObject) -> None:
    text = data.draw(strategy(PARSERS[name].words))
    assert inputs.of_text(PARSERS[name], text) is None
