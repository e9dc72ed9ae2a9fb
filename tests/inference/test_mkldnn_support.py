"""oneDNN's layers are probed once, and without them scores are the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import gelu, linear, silu
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertIntermediate

from evenhand.inference import mkldnn_support
from evenhand.inference.prepacked import Prepacked
from evenhand.models.tiny import tiny_module


@pytest.fixture(autouse=True)
def probed_anew() -> Iterator[None]:
    """A probe is made once a process."""
    probe = mkldnn_support.supported
    probe.cache_clear()
    yield
    probe.cache_clear()


def test_what_is_missing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(weight: torch.Tensor) -> torch.Tensor:
        raise AttributeError("no such operation")

    monkeypatch.setattr(mkldnn_support, "reordered", missing)
    assert not mkldnn_support.supported()


def test_what_computes_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    if not mkldnn_support.supported():
        pytest.skip("this torch has no oneDNN")
    mkldnn_support.supported.cache_clear()
    plain = mkldnn_support.multiplied_by
    monkeypatch.setattr(mkldnn_support, "multiplied_by", lambda *given: plain(*given) + 1)
    assert not mkldnn_support.supported()


def test_the_operations_are_those_of_plain_layers() -> None:
    if not mkldnn_support.supported():
        pytest.skip("this torch has no oneDNN")
    x, weight, bias = torch.randn(2, 5, 32), torch.randn(16, 32), torch.randn(16)
    laid_out, plain = mkldnn_support.reordered(weight), linear(x, weight, bias)
    near = {"rtol": 1e-4, "atol": 1e-4}
    assert torch.allclose(mkldnn_support.multiplied(x, laid_out, bias), plain, **near)
    assert torch.allclose(mkldnn_support.multiplied(x, laid_out, bias, mkldnn_support.SILU), silu(plain), **near)
    assert torch.allclose(mkldnn_support.multiplied(x, laid_out, bias, mkldnn_support.GELU), gelu(plain), **near)
    tanh = mkldnn_support.multiplied(x, laid_out, bias, mkldnn_support.GELU_TANH)
    assert torch.allclose(tanh, gelu(plain, approximate="tanh"), **near)
    assert torch.allclose(mkldnn_support.multiplied_by(x, plain, laid_out, bias), plain * plain, **near)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_without_them_logits_are_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, ids = tiny_module(30, architecture), torch.arange(20)[None]
    found = []
    for there in (True, False):
        if not there:
            monkeypatch.setattr(mkldnn_support, "supported", lambda: False)
        prepacked = Prepacked()
        with torch.inference_mode(), prepacked(module):
            found.append(module(input_ids=ids).logits)
        assert bool(prepacked._packed) == (there and mkldnn_support.supported())
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("activation", "fused"), [("gelu", True), ("relu", False)])
def test_the_wide_layer_of_an_encoder_is_one_operation(activation: str, fused: bool) -> None:
    if not mkldnn_support.supported():
        pytest.skip("this torch has no oneDNN")
    config = BertConfig(hidden_size=16, intermediate_size=32, hidden_act=activation)
    layer, x, calls = BertIntermediate(config).eval(), 3 * torch.randn(2, 5, 16), []
    layer.intermediate_act_fn.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        plain = layer(x)
        with Prepacked()(layer):
            made = layer(x)
    assert len(calls) == (1 if fused else 2)
    assert torch.allclose(made, plain, rtol=1e-5, atol=1e-5)
