"""One, two and three processes give the same answers and comparisons, of which the first one alone writes anything."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

WORKER = Path(__file__).with_name("together_worker.py")
WITHIN = 1e-5
"""What docs/scale.md states; other sequences share a batch, so sums run in another order."""
CEILING = 900


def worker() -> Any:
    """The worker's module; it is no package's."""
    spec = importlib.util.spec_from_file_location("together_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(**more: str) -> dict[str, str]:
    port = str(free_port())
    known = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {**os.environ, **known, "ACCELERATE_USE_CPU": "true", "NO_COLOR": "1", **more}


def launched(count: int, command: list[str]) -> list[subprocess.Popen[str]]:
    env = environment(WORLD_SIZE=str(count))
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What this process finds by itself, as JSON gives it."""
    alone = worker()
    found = {**alone.everything(), "compared": alone.compared(tmp_path_factory.mktemp("one"))}
    return dict(json.loads(json.dumps(found)))


@pytest.fixture(scope="module", params=[2, 3])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two or three processes found."""
    folder = tmp_path_factory.mktemp("several")
    running = launched(request.param, [str(WORKER), str(folder)])
    try:
        errors = [process.communicate(timeout=CEILING)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * request.param, "\n".join(errors)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(request.param)]


def near(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(near, found, expected))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, abs=WITHIN, rel=0, nan_ok=True))
    return bool(found == expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["causal", "masked", "encoder-decoder", "guided", "without a tree"])
def test_answers_are_those_of_one_process(kind: str, one: dict[str, Any], several: list[dict[str, Any]]) -> None:
    """Choices by letters, texts and replies, drawn replies, and scores."""
    for mine in several:
        assert mine[kind] == several[0][kind], "the same number in all processes"
        assert mine[kind].keys() == one[kind].keys()
        for name, expected in one[kind].items():
            assert near(mine[kind][name], expected), name


@pytest.mark.slow
def test_each_process_feeds_its_part(one: dict[str, Any], several: list[dict[str, Any]]) -> None:
    """Together little more than one: beginnings that two parts share, and the trial of the model in each."""
    fed = [mine["fed"] for mine in several]
    assert max(fed) < 1.25 * one["fed"] / len(several)
    assert sum(fed) >= one["fed"]


@pytest.mark.slow
def test_a_comparison_is_that_of_one_process(one: dict[str, Any], several: list[dict[str, Any]]) -> None:
    for mine in several:
        assert near(mine["compared"]["first"], one["compared"]["first"])
        assert mine["compared"]["again"] == mine["compared"]["first"], "taken from the folder, of which all read"
        assert mine["compared"]["again anew"] == [0] * len(one["compared"]["again anew"])
    assert several[0]["compared"]["first anew"] == one["compared"]["first anew"]
    assert [anew for mine in several[1:] for anew in mine["compared"]["first anew"] if anew is not None] == []


@pytest.mark.slow
def test_what_goes_wrong_in_one_goes_wrong_in_all(several: list[dict[str, Any]]) -> None:
    others = [mine["failed"] for rank, mine in enumerate(several) if rank != 1]
    assert others == [["EvenhandError", "ValueError: no more of this (on rank 1)"]] * (len(several) - 1)
    assert several[1]["failed"] == ["ValueError", "no more of this"]
    assert [mine["stopped"][0] for mine in several] == ["KeyboardInterrupt"] * len(several)
    assert all("must run the same program" in mine["unlike"][1] for mine in several)


PLUGIN = '''
import os
from dataclasses import dataclass
from evenhand.errors import SettingsError
from evenhand.interfaces import Method

@dataclass(frozen=True)
class Unlucky(Method):
    """Fails in the second process."""

    name = "unlucky"

    def apply(self, model, data=None):
        if os.environ["RANK"] == "1":
            raise SettingsError("no luck here")
        return model
'''


@pytest.mark.slow
def test_the_first_process_alone_speaks_and_says_what_went_wrong_in_another(tmp_path: Path) -> None:
    (tmp_path / "unlucky.py").write_text(PLUGIN)
    run = tmp_path / "run"
    options = ["--methods", "unlucky", "--benchmarks", "bbq(source=demo)", "--limit", "8", "--replicates", "200"]
    command = ["-m", "evenhand", "compare", *options, "--plugin", str(tmp_path / "unlucky.py"), "--out", str(run)]
    first, second = launched(2, command)
    try:
        said = [process.communicate(timeout=CEILING) for process in (first, second)]
    finally:
        first.kill()
        second.kill()
    assert (first.returncode, second.returncode) == (2, 2), said
    assert "error: no luck here (on rank 1)" in said[0][1] and "Traceback" not in said[0][1]
    assert "error" not in said[1][0] + said[1][1]
    assert (run / "report.html").exists(), "what was finished is shown"


@pytest.mark.slow
def test_ctrl_c_in_one_process_stops_all_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--methods", "self_debias(answer_by=generation)", "--benchmarks", "bbq(source=demo)"]
    first, second = launched(2, ["-m", "evenhand", "compare", *options, "--replicates", "200", "--out", str(run)])
    try:
        ends = time.monotonic() + CEILING
        while not any((run / "answers").glob("*.parquet")):
            assert first.poll() is None and time.monotonic() < ends, first.communicate()
            time.sleep(0.05)
        second.send_signal(signal.SIGINT)
        said = [process.communicate(timeout=CEILING) for process in (first, second)]
    finally:
        first.kill()
        second.kill()
    assert (first.returncode, second.returncode) == (130, 130), said
    assert "run the same command again" in said[0][1] and "Traceback" not in said[0][1] + said[1][1]
    assert said[1][0] == said[1][1] == ""
    assert (run / "report.html").exists()
