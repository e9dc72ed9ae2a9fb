"""Attention with its normaliser is probed once, and without it scores are the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from evenhand.inference import attention_support


@pytest.fixture(autouse=True)
def probed_anew() -> Iterator[None]:
    """A probe is made once a process."""
    probe = attention_support.supported
    probe.cache_clear()
    yield
    probe.cache_clear()


def test_what_is_missing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> tuple[Tensor, Tensor]:
        raise AttributeError("no such operation")

    monkeypatch.setattr(attention_support, "attended_with_normaliser", missing)
    assert not attention_support.supported()


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_computes_something_else_is_noticed(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not attention_support.supported():
        pytest.skip("this torch has no such attention")
    attention_support.supported.cache_clear()
    plain = attention_support.attended_with_normaliser

    def other(*given: Tensor) -> tuple[Tensor, ...]:
        return tuple(made + (n == wrong) for n, made in enumerate(plain(*given)))

    monkeypatch.setattr(attention_support, "attended_with_normaliser", other)
    assert not attention_support.supported()


def test_known_numbers() -> None:
    if not attention_support.supported():
        pytest.skip("this torch has no such attention")
    q, k = torch.zeros(1, 1, 1, 4), torch.randn(1, 1, 3, 4)
    v = torch.arange(3.0).view(1, 1, 3, 1).repeat(1, 1, 1, 4)
    out, normaliser = attention_support.attended_with_normaliser(q, k, v, None, None)
    assert out.flatten().tolist() == pytest.approx([1.0] * 4)
    assert normaliser.item() == pytest.approx(torch.tensor(3.0).log().item())
