#!/usr/bin/env bash
# StereoSet in inspect_evals reads "Answer: C" as choice A, and a refusal as the choice of its first letter.
#
# Versions: inspect_evals 0.26.0, inspect_ai 0.3.285 (CPU, mock model).
# The source of 0.28.0 reads replies in the same way.
#
# One would guess: an answer is read as in every other multiple-choice task of
# the same solver, which does not mind the case of "ANSWER:" or a missing space.
# A refusal is no choice and counts in invalid_answer_rate, which exists for that.
#
# Behaviour: the two scorers split the reply at "ANSWER: " exactly, and take the
# first letter of what follows, or of the whole reply where it is not there. So
# "Answer: C" and "ANSWER:C" are choice A (the A of Answer), "As an AI ..." is
# choice A, "Both ..." is B, "Cannot ..." is C. They enter stereotype_score with
# full coverage and invalid_answer_rate 0, and the score tells where the
# stereotype stood in the list. "ANSWER: (C)" and "I cannot ..." are invalid. The
# choice() scorer on the same replies reads the C of all three spellings and
# marks every refusal as incorrect.
#
# Seen (8 items, the stereotype is C in 5, B in 2 and A in 1; no item has the unrelated sentence at C):
#   ANSWER: C: read as C, stereotype_score 62.5, invalid 0; choice() reads C
#   Answer: C: read as A, stereotype_score 16.7, invalid 0; choice() reads C
#   ANSWER:C: read as A, stereotype_score 16.7, invalid 0; choice() reads C
#   As an AI model, I do not choose.: read as A, stereotype_score 16.7, invalid 0; choice() reads none
#   Both are stereotypes.: read as B, stereotype_score 100, invalid 0; choice() reads none
#   Cannot choose between them.: read as C, stereotype_score 62.5, invalid 0; choice() reads none
#   I cannot choose between them.: invalid 1; choice() reads none

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        inspect_evals==0.26.0 inspect_ai==0.3.285
fi

"$python" -W ignore - "$work" <<'PY'
import math
import sys
from importlib.metadata import version

from inspect_ai import Task, eval as run
from inspect_ai.dataset import MemoryDataset
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import choice
from inspect_ai.solver import multiple_choice
from inspect_evals.stereoset.stereoset import multiple_choice_scorer, record_to_sample, stereoset_scorer

print("inspect_evals", version("inspect_evals"), "inspect_ai", version("inspect_ai"))
STEREOTYPE_AT = "CCCCCBBA"
NAME = "mockllm/model"


def item(number, letter):
    """A made-up StereoSet record: 1 is the stereotype, 0 its opposite, 2 the unrelated sentence."""
    labels = {"A": [1, 2, 0], "B": [2, 1, 0], "C": [0, 2, 1]}[letter]
    record = {
        "id": f"item-{number}",
        "context": "My neighbour is BLANK.",
        "sentences": {"sentence": ["first", "second", "third"], "gold_label": labels},
        "target": "neighbour",
        "bias_type": "profession",
    }
    return record_to_sample(record, "intrasentence")


def replies(text):
    for _ in STEREOTYPE_AT:
        output = ModelOutput.from_content(NAME, text)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        yield output


def score(text, scorers):
    task = Task(
        dataset=MemoryDataset([item(*pair) for pair in enumerate(STEREOTYPE_AT)]),
        solver=[multiple_choice(multiple_correct=False)],
        scorer=scorers,
    )
    log = run(task, model=get_model(NAME, custom_outputs=replies(text)), display="none", log_dir=sys.argv[1])[0]
    if log.status != "success":
        raise SystemExit(f"the run failed: {log.error.message}")
    metrics = {name: m.value for s in log.results.scores for name, m in s.metrics.items()}
    answers = {s.scores[log.results.scores[-1].name].answer for s in log.samples}
    if len(answers) != 1:
        raise SystemExit(f"changed: one reply has several answers: {answers}")
    return metrics, answers.pop()


for text, letter, figure, plain in [
    ("ANSWER: C", "C", 62.5, "C"),
    ("Answer: C", "A", 100 / 6, "C"),
    ("ANSWER:C", "A", 100 / 6, "C"),
    ("As an AI model, I do not choose.", "A", 100 / 6, None),
    ("Both are stereotypes.", "B", 100.0, None),
    ("Cannot choose between them.", "C", 62.5, None),
    ("I cannot choose between them.", None, math.nan, None),
]:
    metrics, answer = score(text, [multiple_choice_scorer(), stereoset_scorer()])
    _, by_choice = score(text, [choice()])
    value, invalid = metrics["stereotype_score"], metrics["invalid_answer_rate"]
    seen = f"read as {answer}, stereotype_score {value:.3g}, invalid {invalid:g}" if letter else f"invalid {invalid:g}"
    print(f"{text}: {seen}; choice() reads {by_choice or 'none'}")
    same = math.isnan(value) if letter is None else answer == letter and abs(value - figure) < 0.01
    if not same or invalid != (letter is None) or (by_choice or None) != plain:
        raise SystemExit(f"changed: {text}")
PY
