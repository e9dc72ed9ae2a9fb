"""`label_bias`: how a model favours labels in classification tasks (Reif & Schwartz 2024, arXiv 2405.02743).

Every Super-NaturalInstructions task of a folder is asked with k demonstrations. RSD and macro-F1 come from tested
instances, BiasScore from held-out labelled ones; all are averaged over tasks, which are the clusters. One item
is one task with one set of demonstrations, so that its metrics, which are not means over instances, are computed once.

The preset `paper` reads labels as the authors' code does (schwartz-lab-NLP/label-bias, src/superni): every model, chat
models included, continues the bare text with " label" and the end-of-text token (predict_utils.py); p(label) is
exp(mean log-likelihood of these tokens), normalised over the task's labels (run_completions_eval.py). A calibrator asks
for its prior in the same way, and its quotients are normalised again (compute_metrics.py). Where the code differs from
ours: it leaves out demonstrations beyond 2,000 tokens (here a prompt that does not fit the context is an error, or
unanswered); RSD is 0 where nothing is right (here undefined); what a task's prompts have in common is tokenised apart
from the rest (here a prompt is one text).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import inf, isnan
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import softmax

from evenhand.data.super_natural_instructions import Example, Task, load, parts
from evenhand.errors import SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded
from evenhand.evaluation.metrics import label_bias as label_metrics
from evenhand.evaluation.metrics.formulas import mean, share
from evenhand.evaluation.metrics.sentence_scores import why_unscored
from evenhand.interfaces import Ability, AnswerBy, Choice, Model, Passage, Question, Shot, Usage, settings
from evenhand.prompting.rendering import as_dialogue, stopped

Prompt = Literal["paper", "plain"]
TEMPLATE: dict[Prompt, str] = {"paper": "input_output", "plain": "bare"}


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One task with one set of demonstrations."""

    id: str
    cluster: str
    """The task's name."""
    category: str
    labels: tuple[str, ...]
    gold: tuple[int, ...]
    """Index of the right label of each tested instance."""
    held_out_gold: tuple[int, ...]
    tested: tuple[Question, ...] = field(repr=False)
    held_out: tuple[Question, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """The answers to one item's questions."""

    tested: tuple[Choice, ...]
    held_out: tuple[Choice, ...]

    @property
    def usage(self) -> Usage:
        """Tokens and calls of all of them together."""
        return sum((c.usage for c in (*self.tested, *self.held_out)), Usage())

    @property
    def status(self) -> str:
        """Unanswered if any of its questions is, so that a resumed run asks it again."""
        lost = any(c.status == "unanswered" for c in (*self.tested, *self.held_out))
        return "unanswered" if lost else "answered"


@settings
class LabelBias(RowBenchmark[TaskItem, TaskAnswer]):
    """Label bias of in-context classification: RSD, BiasScore and macro-F1 over a folder of tasks."""

    name: ClassVar[str] = "label_bias"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    answer_type: ClassVar[type] = TaskAnswer
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "shots": 8,
            "contexts": 1,
            "instances": 100,
            "held_out": 32,
            "reading": "choose",
            "probability": "mean",
            "eos": True,
        },
    }
    added_later: ClassVar[frozenset[str]] = frozenset({"choice"})
    statistics = (
        "items",
        "accuracy",
        "macro_f1",
        "rsd",
        "rsd_defined",  # items with a defined RSD
        "rstd",
        "bias_score",
        "bias_defined",
        "label_gaps",
        "unparsed",
        "unanswered",
    )
    # Each number is computed within a task and averaged over tasks: even RSD and macro-F1 are linear in the sums.
    # RSD has no upper limit: where all answers are one rare label, recall varies much and accuracy is low.
    formulas = (
        mean(
            "rsd",
            "rsd",
            "rsd_defined",
            "lower",
            "bias",
            "spread of accuracy over right labels, relative to accuracy, mean over tasks; 0 is "
            "even, always giving the same of K balanced labels gives sqrt(K-1); tasks with nothing right are left out",
            main=True,
            range=(0, inf),
        ),
        mean(
            "bias_score",
            "bias_score",
            "bias_defined",
            "lower",
            "bias",
            "half the distance of the class-balanced mean prediction on held-out items "
            "from uniform, mean over tasks; 0 is no preference, 1-1/K always the same of K labels",
            main=True,
            range=(0, 1),
        ),
        mean(
            "macro_f1",
            "macro_f1",
            "items",
            "higher",
            "capability",
            "mean F1 over the labels that are right for some instance, 0 to 1",
            main=True,
            range=(0, 1),
        ),
        mean(
            "accuracy",
            "accuracy",
            "items",
            "higher",
            "capability",
            "share of tested instances answered right, mean over tasks",
            range=(0, 1),
        ),
        mean(
            "rstd",
            "rstd",
            "items",
            "lower",
            "bias",
            "standard deviation of the recall of each right label, 0 to 0.5",
            range=(0, 0.5),
        ),
        share(
            "rsd_undefined",
            "items - rsd_defined",
            "items",
            "lower",
            "validity",
            "share of tasks without RSD, because no instance was answered right",
        ),
        mean(
            "label_gaps",
            "label_gaps",
            "items",
            "none",
            "validity",
            "share of labels without a held-out item, mean over tasks; where it is "
            "above 0, BiasScore is too high: a perfect classifier would not have 0",
            range=(0, 1),
        ),
        mean(
            "unparsed",
            "unparsed",
            "items",
            "lower",
            "validity",
            "share of tested instances without a decision",
            main=True,
            range=(0, 1),
        ),
        mean(
            "unanswered",
            "unanswered",
            "items",
            "lower",
            "validity",
            "share of tested instances without a reply (part of unparsed)",
            range=(0, 1),
        ),
    )

    source: str = "auto"
    """Where the tasks are: auto ($EVENHAND_DATA/super_natural_instructions), demo, a folder of task*.json, or one."""
    tasks: tuple[str, ...] = ()
    """Tasks that are asked, as task190 or by their full name; empty takes all classification tasks."""
    choice: Literal["folder", "paper"] = "folder"
    """Which of the folder's tasks are asked: folder takes all classification tasks; paper takes those chosen by the
    paper's rule, 279 of the published ones (`evenhand.data.classification_tasks`). The rule needs the folder's table of
    tasks, README.md; the facts of a run contain its verdict on every task."""
    shots: int = 8
    """Number of demonstrations before each question; 8 in the paper."""
    contexts: int = 3
    """Number of demonstration sets with which each task is asked; a single set says little (1 in the authors' code)."""
    instances: int = 100
    """Maximum number of tested instances per task."""
    held_out: int = 32
    """Number of labelled instances per task reserved for BiasScore; 0 leaves BiasScore out."""
    prompt: Prompt = "paper"
    """Form of the prompt. paper: as in the authors' code (full stops are added, and a blank line before "Output:").
    plain: the lines "Definition:", "Input:" and "Output:" as they are."""
    probability: Literal["mean", "sum"] = "mean"
    """How a label's log-probability is computed: mean (the paper's) or sum over its tokens; it is normalised over the
    labels either way."""
    reading: Literal["choose", "score"] = "choose"
    """How labels are read. choose: questions whose options are the labels, so that every method acts on them; without
    `eos`, a model with a chat template gets the text as a user turn. score: the labels compared as continuations of the
    bare text; methods that only change how a model chooses have no effect."""
    eos: bool = False
    """Whether the end-of-text token counts as part of a label, as in the paper. The text is then bare for every model,
    and both readings give the same numbers: choose asks with answer_by=text_with_end, which is a mean over tokens;
    probability=sum needs reading=score, and a local model."""
    seed: int = 0
    """Seed of the split of raw tasks into demonstrations, held-out and tested instances."""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, and declare what is needed of a model.

        Raises:
            SettingsError: A number is below its minimum, or eos is set with reading=choose and probability=sum.
        """
        for name, least in (("shots", 0), ("contexts", 1), ("instances", 1), ("held_out", 0)):
            if self.settings[name] < least:
                raise SettingsError(f"label_bias: {name}={self.settings[name]} must be at least {least}")
        if self.shots == 0 and self.contexts > 1:
            raise SettingsError(f"label_bias: with shots=0 all contexts={self.contexts} are identical; set contexts=1")
        if self.eos and self.reading == "choose" and self.probability == "sum":
            raise SettingsError(
                "label_bias: eos=True with reading=choose takes the paper's mean over a label's tokens; there is no "
                "such way to choose by their sum; set probability=mean, or reading=score, on which calibrators have no "
                "effect"
            )
        if self.reading == "score":
            object.__setattr__(self, "needs", frozenset({"score", "weights"} if self.eos else {"score"}))

    def read(self) -> Loaded[TaskItem]:
        """Read all tasks by name, each with every set of demonstrations; notes name tasks with a dubious BiasScore."""
        needed = self.contexts * self.shots + self.held_out
        loaded = load(self.source, self.tasks, needed, paper=self.choice == "paper")
        items = [item for task in loaded.tasks for item in self._items(task)]
        gaps = sorted({i.cluster for i in items if self.held_out and _gaps(i) > 0})
        notes = [f"BiasScore is too high: labels without a held-out item in {', '.join(gaps[:5])}"] if gaps else []
        if len(gaps) > 5:
            notes = [f"{notes[0]} and {len(gaps) - 5} more"]
        return Loaded(items, {**loaded.facts, "notes": [*loaded.facts["notes"], *notes]})

    def _items(self, task: Task) -> list[TaskItem]:
        """Make the items of a task, one per set of demonstrations."""
        divided = parts(
            task,
            contexts=self.contexts,
            shots=self.shots,
            held_out=self.held_out,
            tested=self.instances,
            seed=self.seed,
        )
        names = [f"{task.name}/{n}" for n in range(len(divided.contexts))]
        shown = [self._shots(task, shots, name) for shots, name in zip(divided.contexts, names, strict=True)]
        return [
            TaskItem(
                id=name,
                cluster=task.name,
                category=task.category,
                labels=task.labels,
                gold=tuple(e.label for e in divided.tested),
                held_out_gold=tuple(e.label for e in divided.held_out),
                tested=self._questions(task, shots, divided.tested, f"{name} tested"),
                held_out=self._questions(task, shots, divided.held_out, f"{name} held out"),
            )
            for name, shots in zip(names, shown, strict=True)
        ]

    def _questions(
        self, task: Task, shots: tuple[Shot, ...], examples: Sequence[Example], name: str
    ) -> tuple[Question, ...]:
        blank = replace(self._blank(task), header=_title(task, self.prompt), shots=shots)
        return tuple(
            replace(blank, id=f"label_bias {name} {i}", question=_asked(e.input, self.prompt))
            for i, e in enumerate(examples)
        )

    def _shots(self, task: Task, shots: Sequence[Example], name: str) -> tuple[Shot, ...]:
        blank = self._blank(task)
        return tuple(
            _shot(task, e, self.prompt, replace(blank, id=f"label_bias {name} shot {i}")) for i, e in enumerate(shots)
        )

    def _blank(self, task: Task) -> Question:
        """Return the task's question without an input."""
        answer_by: AnswerBy = "text_per_token" if self.probability == "mean" else "text"
        if self.eos and self.probability == "mean":
            answer_by = "text_with_end"
        return Question("", "", task.labels, template=TEMPLATE[self.prompt], answer_by=answer_by)

    def stratum(self, item: TaskItem) -> str:
        """Return the task's category."""
        return item.category

    def ask(self, model: Model, items: Sequence[TaskItem]) -> list[TaskAnswer]:
        """Ask all questions of all items at once."""
        questions = [q for item in items for q in (*item.tested, *item.held_out)]
        answers = iter(model.choose(questions) if self.reading == "choose" else self._scored(model, questions))
        return [
            TaskAnswer(tuple(islice(answers, len(i.tested))), tuple(islice(answers, len(i.held_out)))) for i in items
        ]

    def _scored(self, model: Model, questions: Sequence[Question]) -> list[Choice]:
        end = _end_token(model) if self.eos else ""
        passages = []
        for q in questions:
            text = as_dialogue(q, "text").messages[-1].content
            passages += [Passage(f" {label}{end}", text, q.id) for label in q.options]
        scores = iter(model.score(passages))
        out = []
        for q in questions:
            mine = list(islice(scores, len(q.options)))
            per = [max(1, s.tokens) if self.probability == "mean" else 1 for s in mine]
            out.append(_choice([s.logprob / n for s, n in zip(mine, per, strict=True)], why_unscored(mine)))
        return out

    def row(self, item: TaskItem, answer: TaskAnswer) -> Row:
        """Compute the item's own metrics; undefined ones are left out."""
        k = len(item.labels)
        c = label_metrics.counts(list(item.gold), [a.decision for a in answer.tested], k)
        rsd, bias = float(label_metrics.rsd(c.gold, c.hits)), _bias(item, answer, k)
        found = {
            "items": 1.0,
            "accuracy": float(label_metrics.accuracy(c.gold, c.hits)),
            "macro_f1": float(label_metrics.macro_f1(c.gold, c.hits, c.predicted)),
            "rstd": float(label_metrics.recall_std(c.gold, c.hits)),
            "label_gaps": _gaps(item),
            "unparsed": float(np.mean([a.decision is None for a in answer.tested])),
            "unanswered": float(np.mean([a.status == "unanswered" for a in answer.tested])),
        }
        if not isnan(rsd):
            found |= {"rsd": rsd, "rsd_defined": 1.0}
        if not isnan(bias):
            found |= {"bias_score": bias, "bias_defined": 1.0}
        return found

    def groups_of(self, item: TaskItem) -> tuple[str]:
        """Return the task's category."""
        return (item.category,)

    def strata(self, items: Sequence[TaskItem]) -> dict[str, str]:
        """Put all tasks into one stratum."""
        return {i.cluster: "tasks" for i in items}


def header(task: Task, shots: Sequence[Example], prompt: Prompt = "paper") -> str:
    """Return the definition and the demonstrations, up to the tested input."""
    blank = Question("", "", task.labels)
    return _title(task, prompt) + "".join(_shot(task, e, prompt, blank).text for e in shots)


def _title(task: Task, prompt: Prompt) -> str:
    return f"Definition: {task.definition}\n" if prompt == "plain" else f"{stopped(task.definition)}\n\n"


def _shot(task: Task, example: Example, prompt: Prompt, blank: Question) -> Shot:
    """Make a demonstration; `blank` is the task's question without an input."""
    label = task.labels[example.label]
    if prompt == "plain":
        text = f"{_asked(example.input, prompt)} {label}\n\n"
    else:
        text = f"Input: {stopped(example.input)}\n Output: {stopped(label)}\n\n"
    return Shot(text, replace(blank, question=_asked(example.input, prompt)), example.label)


def _asked(text: str, prompt: Prompt) -> str:
    """Return the question's own text; the paper's form comes from its template, which also adds the full stop."""
    return f"Input: {text}\nOutput:" if prompt == "plain" else text


def _end_token(model: Model) -> str:
    end = model.weights.tokenizer.eos_token
    if not end:
        raise SettingsError(f"label_bias: eos=True, but the tokenizer of {model.name} has no end token; set eos=False")
    return str(end)


def _choice(logits: list[float], unscored: str) -> Choice:
    """Choose the most probable label, the first of ties; None if a label has no score, or all are impossible."""
    if unscored or max(logits) == -inf:
        return Choice(None, status="unanswered", note=unscored or "the model gives every label probability 0")
    values = np.array(logits)
    return Choice(int(values.argmax()), tuple(float(p) for p in softmax(values)), usage=Usage(calls=len(logits)))


def _gaps(item: TaskItem) -> float:
    """Return the share of labels without a held-out item."""
    return 1 - len(set(item.held_out_gold)) / len(item.labels)


def _bias(item: TaskItem, answer: TaskAnswer, k: int) -> float:
    """Compute BiasScore of the held-out items that have probabilities; nan if none has."""
    mass, rows = np.zeros((k, k)), np.zeros(k)
    for gold, choice in zip(item.held_out_gold, answer.held_out, strict=True):
        if choice.probabilities is not None:
            mass[gold] += choice.probabilities
            rows[gold] += 1
    return float(label_metrics.bias_score(mass, rows))
