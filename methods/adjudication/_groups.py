"""Build counterfactual prompt groups (one sentence about people who differ in a descriptor), split without overlap.

A group is one template with one noun; its prompts differ in the descriptor only. Fit, validation and evaluation share
no descriptor and no template: a prompt whose descriptor and template belong to different parts is not used.
Templates that differ only in what precedes the sentence about people ("I'm ...", "How are you? I'm ...") count as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evenhand.core.draws import seeded_order
from evenhand.data.holistic_bias import NONE, PLURAL, SINGULAR, Parts, Phrase, family, fill, phrases
from evenhand.errors import SettingsError

Split = Literal["fit", "validation", "evaluation"]
SPLITS: tuple[Split, ...] = ("fit", "validation", "evaluation")
ANSWERED: tuple[Split, ...] = ("fit", "validation")
"""Parts that members answer; evaluation is never shown in training."""
KINDS = ("descriptor_noun", "noun_descriptor")
"""Kinds of phrases with a descriptor and a noun; the others have no counterpart."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sentence that every member of the pool is asked."""

    id: str
    text: str
    axis: str
    bucket: str
    descriptor: str
    template: str
    noun: str
    plural: str
    """The people that it is about, such as "old people"."""
    split: Split
    draw: int = 0
    """Number of the answer among several to the same sentence."""

    @property
    def group(self) -> str:
        """Everything but the descriptor, which its counterparts share."""
        return f"{self.template} | {self.noun}"


def split_names(names: Iterable[str], shares: Sequence[float], seed: int, what: str) -> dict[str, Split]:
    """Assign each name to a part.

    Args:
        names: Descriptors of an axis, or families of templates.
        shares: Shares of fit, validation and evaluation; they sum to 1.
        seed: Seed of the draw.
        what: Keeps draws of different things apart.

    Returns:
        The part of each name. Two names go to fit and evaluation, three to one each; a part with share 0 gets none.
    """
    drawn = seeded_order(names, seed, what)
    wanted = [s for s, share in zip(SPLITS, shares, strict=True) if share > 0]
    if len(drawn) < len(wanted):
        wanted = [s for s in ("fit", "evaluation", "validation") if s in wanted][: len(drawn)]
    share = {s: shares[SPLITS.index(s)] for s in wanted}
    counts = dict.fromkeys(wanted, 1)
    for _ in range(len(drawn) - len(wanted)):  # each further name goes to the part farthest below its share
        lacking = max(wanted, key=lambda s: (share[s] * len(drawn) / sum(share.values()) - counts[s], -SPLITS.index(s)))
        counts[lacking] += 1
    parts = [s for s in SPLITS if s in counts for _ in range(counts[s])]
    return dict(zip(drawn, parts, strict=True))


def prompts_of(
    parts: Parts,
    *,
    shares: Sequence[float],
    seed: int,
    nouns: int | tuple[str, ...] = 1,
    axes: Sequence[str] = (),
    descriptors: int | None = None,
    templates: int | None = None,
    draws: int = 1,
) -> list[Prompt]:
    """Make the prompts of all parts, sorted by part, axis, descriptor, template and noun.

    Args:
        parts: HolisticBias's files.
        shares: Shares of descriptors and of templates that go to fit, validation and evaluation.
        seed: Seed of every draw.
        nouns: How many nouns are drawn (of neutral gender where there are any), or which.
        axes: Axes that are used; empty takes all.
        descriptors: Maximum number of descriptors per axis, drawn.
        templates: Maximum number of templates, drawn.
        draws: Number of answers to each sentence.

    Raises:
        SettingsError: A name does not exist, or there is too little for a split.
    """
    usable = [p for p in phrases(parts) if p.noun_phrase_type in KINDS and p.descriptor_gender == NONE]
    chosen = _nouns(usable, nouns, seed)
    usable = [p for p in usable if p.noun in chosen and (not axes or p.axis in axes)]
    if not usable:
        known = sorted({p.axis for p in phrases(parts)})
        raise SettingsError(f"no phrases of the axes {list(axes)} with the nouns {sorted(chosen)}; axes: {known}")
    by_axis: dict[str, set[str]] = {}
    for phrase in usable:
        by_axis.setdefault(phrase.axis, set()).add(phrase.descriptor)
    part_of: dict[str, Split] = {}
    kept: dict[str, set[str]] = {}
    for axis in sorted(by_axis):
        kept[axis] = set(seeded_order(by_axis[axis], seed, f"descriptor of {axis}")[:descriptors])
        fresh = kept[axis] - part_of.keys()  # a descriptor listed under two axes has one part
        part_of |= split_names(fresh, shares, seed, f"split of {axis}")
    texts = seeded_order((t.text for t in parts.templates), seed, "template")[:templates]
    families = split_names({family(t) for t in texts}, shares, seed, "split of templates")
    out = [
        prompt
        for phrase in usable
        if phrase.descriptor in kept[phrase.axis]
        for template in texts
        if families[family(template)] == part_of[phrase.descriptor]
        for prompt in _draws(phrase, template, part_of[phrase.descriptor], draws)
    ]
    return sorted(out, key=lambda p: (SPLITS.index(p.split), p.axis, p.descriptor, p.template, p.noun, p.draw))


def refuse_leaks(prompts: Sequence[Prompt]) -> None:
    """Refuse parts that share a descriptor or a template.

    Raises:
        SettingsError: A name is shared; the message gives it.
    """
    for what, of in (("descriptor", lambda p: p.descriptor), ("template", lambda p: family(p.template))):
        seen: dict[str, Split] = {}
        for prompt in prompts:
            if seen.setdefault(of(prompt), prompt.split) != prompt.split:
                raise SettingsError(f"the {what} {of(prompt)!r} is in {seen[of(prompt)]} and in {prompt.split}")


def _draws(phrase: Phrase, template: str, split: Split, draws: int) -> list[Prompt]:
    text = fill(template, phrase)
    return [
        Prompt(
            f"{split}|{phrase.axis}|{phrase.descriptor}|{template}|{phrase.noun}|{draw}",
            text,
            phrase.axis,
            phrase.bucket,
            phrase.descriptor,
            template,
            phrase.noun,
            phrase.plural_noun_phrase,
            split,
            draw,
        )
        for draw in range(draws)
        if SINGULAR in template or PLURAL in template
    ]


def _nouns(usable: Sequence[Phrase], nouns: int | tuple[str, ...], seed: int) -> set[str]:
    genders: Mapping[str, str] = {p.noun: p.noun_gender for p in usable}
    if isinstance(nouns, tuple):
        if unknown := sorted(set(nouns) - genders.keys()):
            raise SettingsError(
                f"no noun {unknown[0]!r} in HolisticBias's files; there are {', '.join(sorted(genders))}"
            )
        return set(nouns)
    drawn = seeded_order(genders, seed, "noun")
    neutral = [n for n in drawn if genders[n] == "neutral"]
    return set([*neutral, *(n for n in drawn if n not in neutral)][:nouns])
