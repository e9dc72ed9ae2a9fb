"""Training data of a steering method: pairs and labelled questions, made into contrasts and divided by template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from evenhand.core.hashing import digest
from evenhand.errors import SettingsError
from evenhand.interfaces import Model, Pair, Question, TrainData, in_first_names
from evenhand.methods.steering._contrasts import Contrast, of_pair, of_question, orders, template, with_targets
from evenhand.methods.steering._templates import families
from evenhand.models.tokenization import Encoder
from evenhand.prompting.rendering import as_dialogue
from evenhand.training import hold_out

Split = Literal["template", "row"]
LEAST_CONTRASTS = 8
"""Minimum number of contrasts for estimating a direction."""


class Lesson(NamedTuple):
    """Training data as given, without what is not used."""

    pairs: tuple[Pair, ...]
    questions: tuple[tuple[Question, int], ...]
    """Questions with their right options."""

    @property
    def content(self) -> list[object]:
        """Return everything that determines a fit, with a stable `repr`."""
        return [[in_first_names(p) for p in self.pairs], [(in_first_names(q), right) for q, right in self.questions]]


def lesson(name: str, data: TrainData, axes: Sequence[str], max_pairs: int | None) -> Lesson:
    """Return the part of the training data that is used.

    Args:
        name: Name of the method, for errors.
        data: Training data with pairs, or questions with right options, or both.
        axes: Axes that are used; empty takes all.
        max_pairs: Maximum number of pairs, and of questions; None takes all.

    Raises:
        SettingsError: There is too little data, or a question lacks its right option.
    """
    pairs = tuple(p for p in data.pairs if not axes or p.axis in axes)[:max_pairs]
    answers = data.answers or (None,) * len(data.questions)
    labelled = [(q, right) for q, right in zip(data.questions, answers, strict=True) if right is not None]
    questions = tuple((q, right) for q, right in labelled if not axes or q.axis in axes)[:max_pairs]
    for question, right in questions:
        if not 0 <= right < len(question.options):
            raise SettingsError(
                f"{name}: question {question.id!r} of the training data has the right option {right}, but its options "
                f"are 0 to {len(question.options) - 1}: correct its answer"
            )
    different = len({*pairs}) + len({*questions})
    if different < LEAST_CONTRASTS:
        known = sorted({*(p.axis for p in data.pairs), *(q.axis for q in data.questions)} - {""})
        about = f" about {', '.join(axes)} (there are: {', '.join(known) or 'none with an axis'})" if axes else ""
        raise SettingsError(
            f"{name} needs at least {LEAST_CONTRASTS} different pairs or labelled questions{about}, not {different}"
        )
    return Lesson(pairs, questions)


def contrasts(model: Model, encoder: Encoder, found: Lesson) -> list[Contrast]:
    """Make contrasts of pairs, and of questions that the pairs do not already name.

    The stereotyped option of a question is that of the pair with its id, which makes it a contrast with three options.
    Without such a pair, a question is contrasted with the wrong option that the model finds most probable.
    Questions whose right option is the stereotyped one have no contrast.
    """
    targets = with_targets(found.questions, found.pairs)
    open_ = [q for q, _ in found.questions if q.id not in targets]
    choices = iter(model.choose(open_) if open_ else ())
    made = [of_pair(p) for p in found.pairs if p.id not in targets]
    for question, right in found.questions:
        biased = targets.get(question.id)
        if biased is None:
            p = next(choices).probabilities
            wrong = [o for o in range(len(question.options)) if o != right]
            biased = max(wrong, key=lambda o: p[o]) if p else None
        if biased is None or biased == right:
            continue
        contrast = of_question(question, right, biased, encoder.blank(as_dialogue(question, "letters")))
        made.append(_with_unknown(contrast) if question.id in targets else contrast)
    return made


def _with_unknown(contrast: Contrast) -> Contrast:
    """Complete a pair of an unanswerable question: the right option says so, the third is the other person."""
    others = set(range(len(contrast.answers))) - {contrast.biased, contrast.other}
    if len(others) != 1:  # two options, or more people than one
        return contrast._replace(unknown=contrast.other)
    return contrast._replace(other=others.pop(), unknown=contrast.other)


def divided(found: Sequence[Contrast], split: Split, fraction: float, seed: int) -> tuple[list[Contrast], ...]:
    """Divide contrasts into training and held-out ones, keeping those of one template together.

    Raises:
        SettingsError: All contrasts have the same template.
    """
    by_row = split == "row"
    names = [repr((c.prompt, c.suffix)) for c in found] if by_row else families([template(c) for c in found])
    places = range(len(found))
    learned, held = hold_out(places, lambda n: [names[n]], fraction, seed)
    return [found[n] for n in learned], [found[n] for n in held]


def shown(found: Sequence[Contrast], *, balanced: bool) -> list[Contrast]:
    """Return contrasts as they are read: in all cyclic orders of their options, or as given."""
    return [one for c in found for one in (orders(c) if balanced else [c])]


def data_hash(found: Lesson) -> str:
    """Hash of the training data."""
    return digest(found.content)
