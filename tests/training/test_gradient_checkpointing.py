"""Gradient checkpointing: the same weights, from activations that are computed anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenhand.errors import SettingsError
from evenhand.models.tiny import tiny_module
from evenhand.training.gradient_checkpointing import checkpointed
from evenhand.training.hidden import final_hidden
from evenhand.training.loop import Schedule, Training
from evenhand.training.lora import Adapter, adapted, lora_config
from evenhand.training.losses import chunked_cross_entropy


def dropping() -> Any:
    """A model of one adapter with dropout, whose numbers must be drawn alike twice."""
    module = tiny_module(24, "llama")
    return adapted(module, lora_config(module, Adapter(2, 4, dropout=0.3)), 0)


def loss(module: Any, ids: Tensor) -> Tensor:
    hidden = final_hidden(module, input_ids=ids)[:, :-1].flatten(0, 1)
    return chunked_cross_entropy(hidden, module.get_output_embeddings(), ids[:, 1:].flatten())


def trained(recomputed: bool) -> tuple[dict[str, Tensor], int]:
    """The adapter's weights, and how often the first block was run."""
    module, runs = dropping(), []
    block = module.get_base_model().model.layers[0].mlp
    block.register_forward_pre_hook(lambda *_: runs.append(1))
    torch.manual_seed(3)
    ids = torch.randint(0, 24, (4, 3, 9))
    Training(
        module=module,
        batches=lambda epoch, random: list(ids),
        loss=loss,
        schedule=Schedule(epochs=2, learning_rate=1e-2, device="cpu", gradient_checkpointing=recomputed),
    ).run()
    assert not module.is_gradient_checkpointing and module.config.use_cache
    return {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}, len(runs)


def test_dropout_and_weights_are_the_same_and_blocks_run_twice() -> None:
    (plain, once), (recomputed, twice) = trained(False), trained(True)
    assert once == 8 and twice == 16
    for name, weight in plain.items():
        assert torch.allclose(weight, recomputed[name], atol=1e-6, rtol=0), name


def test_keys_and_values_are_not_cached_meanwhile_and_all_is_put_back() -> None:
    module = dropping()
    with pytest.raises(RuntimeError, match="stopped"), checkpointed(module):
        assert module.is_gradient_checkpointing and not module.config.use_cache
        raise RuntimeError("stopped")
    assert not module.is_gradient_checkpointing and module.config.use_cache
    with checkpointed(module, wanted=False):
        assert not module.is_gradient_checkpointing and module.config.use_cache


def test_what_cannot_do_it_is_refused() -> None:
    plan = Schedule(epochs=1, learning_rate=1e-2, device="cpu", gradient_checkpointing=True)
    line = nn.Linear(1, 1)
    with pytest.raises(SettingsError, match="Linear has no gradient checkpointing"):
        Training(module=line, batches=lambda e, r: [torch.ones(1)], loss=lambda m, b: m(b).sum(), schedule=plan).run()


def test_it_is_no_part_of_what_a_checkpoint_is_of() -> None:
    plans = [Schedule(epochs=1, learning_rate=1e-2, gradient_checkpointing=c) for c in (False, True)]
    assert plans[0].for_checkpoints() == plans[1].for_checkpoints()
    assert "gradient_checkpointing" not in plans[0].for_checkpoints()
