"""The engine on another device gives what it gives on the CPU: EVENHAND_TEST_DEVICE=cuda (skipped elsewhere)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from evenhand.inference import Prompt, Request
from evenhand.interfaces import Passage, Question, Sampling
from evenhand.models.local import LocalModel
from evenhand.models.tiny import ARCHITECTURES, tiny_model

DEVICE = os.environ.get("EVENHAND_TEST_DEVICE", "")
pytestmark = [
    pytest.mark.skipif(not DEVICE, reason="EVENHAND_TEST_DEVICE names no device"),
    pytest.mark.skipif(DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="torch sees no GPU"),
]
TOLERANCE = 1e-3
ROWS = [(7, 8, 9, *range(10, 10 + n)) for n in range(0, 24, 3)]
QUESTIONS = [Question(str(n), f"Who was the {w}", ("little dog", "cat", "A dog")) for n, w in enumerate(("cat", "dog"))]


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def both(architecture: str = "llama") -> tuple[LocalModel, LocalModel]:
    """The same weights on the CPU and on the device."""
    models = [tiny_model(architecture) for _ in range(2)]
    models[1].weights.module.to(DEVICE)
    here, there = (LocalModel(m.weights.module, m.weights.tokenizer, name=m.name) for m in models)
    return here, there


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reads(architecture: str) -> None:
    asked = [Request(row, ((len(row) - 1, 20), (1, 30))) for row in ROWS]
    here, there = (m.engine.read(asked, "f") for m in both(architecture))
    for one, other in zip(here, there, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replies(architecture: str, temperature: float) -> None:
    how = Sampling(temperature=temperature, max_new_tokens=6, top_p=0.9 if temperature else 1.0)
    here, there = (m.engine.generate([Prompt(row) for row in ROWS], how, "f") for m in both(architecture))
    assert [g.ids for g in here] == [g.ids for g in there]


@pytest.mark.parametrize("way", ["letters", "text", "generation"])
def test_choices(way: str) -> None:
    here, there = both()
    here.answer_by = there.answer_by = way  # type: ignore[assignment]
    for one, other in zip(here.choose(QUESTIONS), there.choose(QUESTIONS), strict=True):
        assert (one.decision, one.status) == (other.decision, other.status)
        if one.probabilities is not None:
            assert one.probabilities == pytest.approx(other.probabilities, abs=TOLERANCE)


def test_scores() -> None:
    passages = [Passage(" little dog", "Once upon a time"), Passage("cat")]
    here, there = (m.score(passages) for m in both())
    assert [s.logprob for s in here] == pytest.approx([s.logprob for s in there], abs=TOLERANCE)
