"""What a steering method learns from: pairs and labelled questions, made into contrasts and divided by template."""

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
"""Fewer say nothing of a direction."""


class Lesson(NamedTuple):
    """Training data as it was given, without what is not used."""

    pairs: tuple[Pair, ...]
    questions: tuple[tuple[Question, int], ...]
    """Each with its right option."""

    @property
    def content(self) -> list[object]:
        """What decides a fit, with a stable `repr`."""
        return [[in_first_names(p) for p in self.pairs], [(in_first_names(q), right) for q, right in self.questions]]


def lesson(name: str, data: TrainData, axes: Sequence[str], max_pairs: int | None) -> Lesson:
    """What is used of training data.

    Args:
        name: Of the method, for errors.
        data: With pairs, or questions with right options, or both.
        axes: Axes that are used; empty takes all.
        max_pairs: Most pairs and questions of either kind; None takes all.

    Raises:
        SettingsError: There is too little, or a right option that its question does not have.
    """
    pairs = tuple(p for p in data.pairs if not axes or p.axis in axes)[:max_pairs]
    answers = data.answers or (None,) * len(data.questions)
    labelled = [(q, right) for q, right in zip(data.questions, answers, strict=True) if right is not None]
    questions = tuple((q, right) for q, right in labelled if not axes or q.axis in axes)[:max_pairs]
    for question, right in questions:
        if not 0 <= right < len(question.options):
            raise SettingsError(
                f"{name}: question {question.id!r} of the training data has the right option {right}, and its options "
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
    """Contrasts of pairs, and of questions that the pairs do not name already.

    The stereotyped option of a question is that of the pair with its id, which makes it a contrast with three options.
    Where there is no such pair, a question is contrasted with the wrong option that the model finds most probable.
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
    """Pairs are made of questions that cannot be answered: the right option says so, the third is the other person."""
    others = set(range(len(contrast.answers))) - {contrast.biased, contrast.other}
    if len(others) != 1:  # two options, or more people than one
        return contrast._replace(unknown=contrast.other)
    return contrast._replace(other=others.pop(), unknown=contrast.other)


def divided(found: Sequence[Contrast], split: Split, fraction: float, seed: int) -> tuple[list[Contrast], ...]:
    """Contrasts to learn from and contrasts held out, those of one template on one side.

    Raises:
        SettingsError: All are of one template.
    """
    by_row = split == "row"
    names = [repr((c.prompt, c.suffix)) for c in found] if by_row else families([template(c) for c in found])
    places = range(len(found))
    learned, held = hold_out(places, lambda n: [names[n]], fraction, seed)
    return [found[n] for n in learned], [found[n] for n in held]


def shown(found: Sequence[Contrast], *, balanced: bool) -> list[Contrast]:
    """Contrasts as they are read: in all cyclic orders of their options, or as given."""
    return [one for c in found for one in (orders(c) if balanced else [c])]


def data_hash(found: Lesson) -> str:
    """Hash of the training data."""
    return digest(found.content)
