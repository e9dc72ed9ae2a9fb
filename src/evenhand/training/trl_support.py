"""TRL's preference trainer, for rows that are already tokenised.

TRL tokenises texts itself, in the undocumented `DPOTrainer._prepare_dataset`. `supported` checks once whether that
exists. If it does, a trainer without that step is used. If not, the trainer is made with a text in place of the rows,
and is given the rows afterwards, as `train_dataset` and `eval_dataset`; the result is the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

Rows = Sequence[Mapping[str, list[int]]]
PLACEHOLDER = {"prompt": "a", "chosen": " b", "rejected": " c"}


def library() -> Any:
    """Import TRL, which is only partly typed."""
    return importlib.import_module("trl")


@cache
def supported() -> bool:
    """Whether this version of TRL has the step that tokenises texts, so that it can be left out."""
    try:
        return callable(library().DPOTrainer._prepare_dataset)
    except AttributeError:
        return False


def dpo_trainer(train: Rows, held: Rows, **given: Any) -> Any:
    """Make a `trl.DPOTrainer` for rows of `prompt_ids`, `chosen_ids` and `rejected_ids`.

    Args:
        train: Rows to train on.
        held: Rows to evaluate on; may be empty.
        given: Further arguments of the trainer.
    """
    from datasets import Dataset

    rows = [Dataset.from_list([dict(row) for row in some]) if some else None for some in (train, held)]
    if supported():
        return _for_tokens(library().DPOTrainer)(train_dataset=rows[0], eval_dataset=rows[1], **given)
    text = Dataset.from_list([PLACEHOLDER])
    trainer = library().DPOTrainer(train_dataset=text, eval_dataset=text if held else None, **given)
    trainer.train_dataset, trainer.eval_dataset = rows
    return trainer


def _for_tokens(trainer: Any) -> Any:
    class Ready(trainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return Ready
