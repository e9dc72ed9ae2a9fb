"""Every data set that a benchmark reads, by the name of its folder."""

from __future__ import annotations

from evenhand.data import (
    bbq,
    bscore,
    crows_pairs,
    gpqa,
    holistic_bias,
    ifeval,
    mmlu,
    multiple_choice_file,
    redditbias,
    seat,
    self_diagnosis,
    stereoset,
    super_natural_instructions,
    text_file,
    wikitext,
    winobias,
    winogender,
)
from evenhand.data.io.locate import Dataset

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
)
DATASETS: dict[str, Dataset] = {module.DATASET.name: module.DATASET for module in _MODULES}
