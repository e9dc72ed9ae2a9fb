"""A training through TRL: it ends where its loss is not finite, and its checkpoints are whole or not continued from."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig

from evenhand.core.artifacts import artefact, artefacts
from evenhand.errors import DivergedError
from evenhand.models.tiny import tiny_model
from evenhand.training import trl as through_trl
from evenhand.training import trl_watching
from evenhand.training.trl_watching import last_checkpoint

pytest.importorskip("trl")
ROWS = [{"input_ids": [5, 6, 7, 8 + n], "completion_mask": [0, 0, 1, 1]} for n in range(4)]
RECIPE = through_trl.Recipe(objective="sft", epochs=3, learning_rate=0.01, warmup=0, batch_size=2, cpu=True)


def train(folder: Path) -> through_trl.Outcome:
    module, tokenizer = tiny_model(seed=3).weights
    adapter = LoraConfig(r=2, target_modules="all-linear")
    return through_trl.train(module, tokenizer, ROWS, RECIPE, folder, adapter=adapter)


def broken(monkeypatch: pytest.MonkeyPatch, step: int, value: float = math.nan) -> list[int]:
    """A loss that is not finite in one step; returns where the steps are counted."""
    from trl import SFTTrainer

    seen, real = list[int](), SFTTrainer.training_step

    def training_step(self: Any, *arguments: Any, **named: Any) -> Any:
        seen.append(self.state.global_step)
        loss = real(self, *arguments, **named)
        return loss * value if self.state.global_step == step else loss

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    return seen


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_and_the_last_good_checkpoint_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    seen = broken(monkeypatch, 3, value)
    said = rf"loss became {value} in step 3; take a learning_rate below 0\.01\. The last good .*checkpoint-2$"
    with pytest.raises(DivergedError, match=said):
        train(tmp_path)
    assert seen == [0, 1, 2, 3], "of six steps"
    monkeypatch.undo()
    seen = broken(monkeypatch, 99)
    made = train(tmp_path)
    assert seen == [2, 3, 4, 5] and made.steps == 6, "the checkpoint was continued from"


def test_a_checkpoint_that_goes_away_with_its_folder_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, 3)
    with artefacts(None), pytest.raises(DivergedError, match=r"below 0\.01$"), artefact("key", train):
        pass


def test_weights_that_are_not_finite_become_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step before a checkpoint breaks them, and no loss tells."""
    real = torch.optim.AdamW.step

    def step(self: Any, *arguments: Any, **named: Any) -> Any:
        found = real(self, *arguments, **named)
        if self.state and int(next(iter(self.state.values()))["step"]) == 4:
            self.param_groups[0]["params"][0].data.view(-1)[0] = math.nan
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(DivergedError, match=r"no longer finite; take a .*checkpoint-2$"):
        train(tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_damaged_or_half_written_checkpoint_is_moved_aside(tmp_path: Path) -> None:
    train(tmp_path)
    (last,) = tmp_path.glob("checkpoint-*")
    assert last_checkpoint(tmp_path) == last and (last / "checksums.sha256").is_file()
    (last / "checksums.sha256").unlink()
    assert last_checkpoint(tmp_path) == last, "as an earlier version has left it"
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"checkpoint-10 is damaged \(trainer_state.json is missing\)"):
        assert last_checkpoint(tmp_path) == last
    trl_watching.seal(last)
    file = last / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"checkpoint-6 is damaged \(optimizer.pt"):
        assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "nothing") is None


def test_what_was_frozen_is_not_looked_at() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.data[0, 0] = math.nan
    layer.weight.requires_grad_(False)
    trl_watching.refuse_broken_weights(SimpleNamespace(model=layer))
