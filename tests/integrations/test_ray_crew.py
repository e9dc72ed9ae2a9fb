"""A comparison on Ray: the same scores, also where a worker is killed; what is refused."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import evenhand
from evenhand.errors import SettingsError
from evenhand.integrations import ray_crew
from evenhand.integrations.ray_crew import RayCrew

BENCHMARKS = ["mmlu(source=demo)", "bbq(source=demo)"]
METHODS = ["none", "self_debias", "permutation"]


def test_without_ray_the_command_to_install_it_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"not installed: pip install 'evenhand\[ray\]'"):
        RayCrew()


def test_what_no_host_has_is_refused():
    hosts = [{"CPU": 4.0, "memory": 8e9}, {"CPU": 8.0, "memory": 4e9}]
    ray_crew._refuse_missing("m", {"num_cpus": 4, "num_gpus": 0, "memory": 8e9}, hosts)
    for need, what in (
        ({"num_gpus": 1}, "needs 1 of GPU per worker"),
        ({"memory": 9e9}, "needs 9,000,000,000 of memory per worker"),
        ({"num_cpus": 8, "memory": 8e9}, "no host of the cluster has all"),
    ):
        with pytest.raises(SettingsError, match=what):
            ray_crew._refuse_missing("m", need, hosts)


@pytest.mark.parametrize(
    ("hosts", "workers", "threads"),
    [
        ([{"CPU": 8.0}, {"CPU": 8.0}], 1, 8),  # not 16, which no host has
        ([{"CPU": 8.0}, {"CPU": 8.0}], 3, 4),  # not 5, of which two workers would fit
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 64.0}], 1, 16),
        ([{"CPU": 16.0, "GPU": 8.0}], 8, 2),
        ([{"CPU": 2.0}], 4, 1),
    ],
)
def test_a_worker_requests_no_more_than_a_host_has(hosts: list[dict[str, float]], workers: int, threads: int):
    model: Any = SimpleNamespace(sketched=SimpleNamespace(on_cpu=False), memory=None)
    assert ray_crew._requested(model, hosts, workers)["num_cpus"] == threads


def kill_the_first(killed: list[int], marker: Path) -> None:
    """Kill a worker as soon as a cell is finished, so that another one is being asked."""
    while not list(marker.glob("answers/*.parquet")):
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::RemoteWo"):
            process.kill()
            killed.append(process.pid)
            return


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_six_cells_on_two_workers_of_which_one_is_killed(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'evenhand[ray]'")
    given: dict[str, Any] = {"limit": 40, "show_progress": False}
    one = evenhand.compare("demo", METHODS, BENCHMARKS, out=tmp_path / "one", **given)
    killed: list[int] = []
    killer = threading.Thread(target=kill_the_first, args=(killed, tmp_path / "two"), daemon=True)
    killer.start()
    said: list[str] = []
    two = evenhand.compare("demo", METHODS, BENCHMARKS, out=tmp_path / "two", crew=RayCrew(2, say=said.append), **given)
    killer.join(10)
    assert len(killed) == 1 and not psutil.pid_exists(killed[0])
    assert (
        said == ["demo: 6 cells; each worker requests 1 processors, 0 GPUs; 2.0 GiB by its size"] or os.cpu_count() != 2
    )

    def numbers(report: evenhand.Report) -> list[str]:
        return [
            repr((r.method, r.benchmark, r.metric, r.group, r.value, r.low, r.high, r.difference, r.p_holm))
            for r in report.records
            if "seconds" not in r.metric
        ]

    assert numbers(two) == numbers(one)
    assert sorted(p.name for p in (tmp_path / "one/answers").iterdir()) == sorted(
        p.name for p in (tmp_path / "two/answers").iterdir()
    )
