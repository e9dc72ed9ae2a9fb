"""`transformers serve` in a process of its own, with a tiny random model built here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.servers.server_checks import dialogues, distinct, draws_are_the_models_own, greedy_replies_are_the_models

from evenhand.errors import EndpointError
from evenhand.interfaces import Dialogue, Sampling
from evenhand.models.endpoint import EndpointModel, open_endpoint
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model

pytest.importorskip("openai")
pytest.importorskip("transformers.cli.serve")

START = 40.0
"""Seconds that the server may take to start."""
COMMAND = Path(sys.executable).with_name("transformers")


class Running(NamedTuple):
    """The server, and the model that it serves."""

    url: str
    name: str
    here: LocalModel

    def model(self, **options: object) -> EndpointModel:
        return open_endpoint(f"{self.url}#{self.name}", **{"server": "transformers", "retries": 1, **options})


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as reply:
                return bool(reply.status == 200)
        except OSError:
            time.sleep(0.2)
    return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not COMMAND.exists() and shutil.which("transformers") is None:
        pytest.skip("the command transformers is not installed")
    folder, here = tmp_path_factory.mktemp("served"), tiny_model(name="tiny")
    here.engine.module.save_pretrained(folder)
    here.engine.tokenizer.save_pretrained(folder)
    port = _free_port()
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    (folder / "hub" / "hub").mkdir(parents=True)
    command = [str(COMMAND) if COMMAND.exists() else "transformers", "serve", str(folder)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            stdout=log,
            stderr=log,
            env={**os.environ, **own},
        )
        try:
            if not _answers(f"http://127.0.0.1:{port}/health", process):
                said = (folder / "log.txt").read_text(errors="replace")
                if "Missing dependencies" in said:
                    pytest.skip("transformers[serving] is not installed")
                pytest.skip(f"transformers serve did not start within {START:g} s") if process.poll() is None else None
                pytest.fail(f"transformers serve ended: {said[-500:]}")
            yield Running(f"http://127.0.0.1:{port}/v1", str(folder), here)
        finally:
            process.kill()
            process.wait()


def test_replies_are_those_of_the_same_weights(served: Running) -> None:
    greedy_replies_are_the_models(served.model(), served.here)


def test_draws_are_the_models_own(served: Running) -> None:
    draws_are_the_models_own(served.model(), served.here)


def test_a_first_look_finds_what_it_lacks(served: Running) -> None:
    found = served.model().preflight(draws=True)
    assert found.new_tokens > 0 and not found.thinks
    with pytest.raises(EndpointError, match="no log-probabilities"):
        served.model().preflight(letters=True)
    with pytest.raises(EndpointError, match="server='transformers'"):
        served.model(server="other").preflight(draws=True)
    with pytest.raises(EndpointError, match="pinned to"):
        open_endpoint(f"{served.url}#other", retries=0).preflight()


def test_without_its_name_it_draws_nothing(served: Running) -> None:
    """Why the option is there; if this fails, transformers serve has begun to obey the temperature."""
    asked = [Dialogue(dialogues()[0].messages, draw=n) for n in range(8)]
    drawn = Sampling(temperature=1.0, max_new_tokens=8)
    assert distinct([r.text for r in served.model(server="other").generate(asked, drawn)]) == 1
    assert distinct([r.text for r in served.model().generate(asked, drawn)]) > 1


def test_settings_that_it_does_not_know_are_refused_in_its_own_words(served: Running) -> None:
    reply = served.model(extra={"min_p": 0.1}).generate(dialogues()[:1])[0]
    assert reply.text is None and "Unexpected fields" in reply.note and "min_p" in reply.note
