"""The charts: what they show of every point and cell, and that they are written as vector figures without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.report.test_page import BASELINE, EVIL, of, record

from evenhand.report import Report
from evenhand.report.charts import pareto_chart
from evenhand.report.palette import COLOURS
from evenhand.report.pareto import ParetoPoint


def values(chart: Any) -> list[dict[str, Any]]:
    """The data of a chart, whose layers share it."""
    spec = chart.to_dict()
    (found,) = spec["datasets"].values() if "datasets" in spec else [spec["data"]["values"]]
    return list(found)


@pytest.fixture
def report() -> Report:
    grouped = [record("none", "bias", 0.5, group="Age", n=1234), *of("good", -0.25, 0.8)]
    more = [*of("blunt(k=2)", 0.1, 0.5, accuracy_p=0.001), *of(EVIL, 0.3, 0.8)]
    return Report([*BASELINE, *grouped, *more], {"demo": True})


def test_a_point_tells_method_settings_and_intervals(report: Report) -> None:
    found = {v["method"]: v for v in values(report.pareto_chart())}
    assert set(found) == {"none", "good", "blunt(k=2)", EVIL}
    blunt = found["blunt(k=2)"]
    assert (blunt["settings"], blunt["bias_told"]) == ("k=2", "0.100 [0.000, 0.200]")
    assert blunt["capability_told"] == "0.500 [0.400, 0.600]" and found["none"]["state"] == "baseline"
    assert "demo model" in str(report.pareto_chart().to_dict()["title"])


def point(method: str, curve: str = "", position: float | None = None, model: str = "m") -> ParetoPoint:
    numbers = 0.1, 0.0, 0.2, 0.8, 0.7, 0.9, 1.0, 1.0
    return ParetoPoint(model, method, "none", {}, *numbers, "front", (), curve, "k", position)


def test_a_sweep_is_joined_by_a_line_and_other_points_are_not() -> None:
    def lines(points: list[ParetoPoint]) -> list[Any]:
        layers = pareto_chart(points, bias="bias", capability="accuracy").to_dict()["layer"]
        return [layer for layer in layers if layer["mark"]["type"] == "line"]

    assert lines([point("a"), point("b")]) == []
    (line,) = lines([point("a(k=1)", "a(k)", 1.0), point("a(k=2)", "a(k)", 2.0), point("b")])
    assert line["transform"] == [{"filter": "datum.curve != ''"}]
    assert line["encoding"]["order"]["field"] == "position"


def test_models_have_colours_of_their_own() -> None:
    spec = pareto_chart([point("a"), point("a", model="other")], bias="b", capability="c").to_dict()
    assert spec["layer"][0]["encoding"]["color"]["scale"] == {"domain": ["m", "other"], "range": list(COLOURS[:2])}


def test_names_that_would_run_into_one_another_turn_away() -> None:
    near = [point("a"), point("b"), point("c")]
    far = [point("d")._replace(bias=0.9), point("e")._replace(capability=0.1)]
    assert [v["place"] for v in values(pareto_chart([*near, *far], bias="b", capability="c"))] == [
        "above",
        "below",
        "",
        "above",
        "above",
    ]


def test_a_cell_of_the_heat_map_has_value_n_and_interval(report: Report) -> None:
    cells = {(v["row"], v["group"]): v for v in values(report.heat_chart())}
    cell = cells["none", "Age"]
    assert (cell["shown"], cell["interval"], cell["n"]) == ("0.500", "[0.400, 0.600]", "1234")
    assert cells["good", "overall"]["value"] == -0.25 and cells["good", "overall"]["shown"] == "-0.250*"


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_charts_are_written_as_vector_figures(report: Report, kind: str, tmp_path: Path) -> None:
    for name, chart in (("pareto", report.pareto_chart()), ("heat", report.heat_chart())):
        file = tmp_path / f"{name}.{kind}"
        chart.save(str(file))
        begins = {"svg": b"<svg", "pdf": b"%PDF"}[kind]
        assert file.read_bytes().startswith(begins)
        assert b"</script><script>" not in file.read_bytes()
