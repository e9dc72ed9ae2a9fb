"""Every data set that a benchmark reads, by the name of its folder."""

from __future__ import annotations

from evenhand.data import (
    bbq,
    bscore,
    cabbq,
    cbbq,
    crows_pairs,
    difference_awareness,
    discrim_eval,
    esbbq,
    gg_bbq,
    gpqa,
    holistic_bias,
    honest,
    ifeval,
    kobbq,
    mbbq,
    mmlu,
    multiple_choice_file,
    redditbias,
    seat,
    self_diagnosis,
    stereoset,
    super_natural_instructions,
    text_file,
    unqover,
    wikitext,
    winobias,
    winogender,
    winoqueer,
)
from evenhand.data.io.locate import Dataset
from evenhand.errors import SettingsError

_MODULES = (
    bbq,
    holistic_bias,
    mmlu,
    gpqa,
    ifeval,
    bscore,
    stereoset,
    crows_pairs,
    winogender,
    winobias,
    redditbias,
    super_natural_instructions,
    text_file,
    wikitext,
    multiple_choice_file,
    seat,
    self_diagnosis,
    winoqueer,
    difference_awareness,
    discrim_eval,
    kobbq,
    esbbq,
    gg_bbq,
    mbbq,
    cbbq,
    unqover,
    honest,
)
DATASETS: dict[str, Dataset] = {module.DATASET.name: module.DATASET for module in _MODULES}
EVALUATION_ONLY = {
    dataset.hub.casefold(): dataset.evaluation_only
    for dataset in (*DATASETS.values(), cabbq.DATASET)  # cabbq's folder is that of esbbq
    if dataset.hub and dataset.evaluation_only
}
"""Why no method may be trained on a data set, by its name on the hub in lower case."""


def for_evaluation(name: str, reason: str) -> SettingsError:
    """The error where somebody asks for training data that is for evaluation only.

    Args:
        name: What was asked for.
        reason: Why nobody may train on it.
    """
    return SettingsError(f"{name} is for evaluation, and no method may be trained on it: {reason}. Give other data")
