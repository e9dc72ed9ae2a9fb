"""Planted quantities: everything that the demo models are trained to have, in one frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from evenhand.proving_ground.generator.cipher import Language
from evenhand.proving_ground.generator.words import AXES, AXIS, OCCUPATIONS, Axis

Intervention = Literal["reprompt", "instruction", "explanation"]
INTERVENTIONS: tuple[Intervention, ...] = ("reprompt", "instruction", "explanation")
LEANS: dict[str, tuple[str, ...]] = {
    # Per axis a string for every marked group (frequent ones first) and in it a sign for every trait:
    # + the stereotype is answered, - its opposite, 0 the unknown option.
    "Age": ("++++0+", "+++00+", "0++0+0"),
    "Gender_identity": ("++0+0+", "+0+0+0", "0+0++0"),
    "SES": ("+0+0+0", "0+0+00", "+000+0"),
    "Religion": ("+0-+0+", "0+00+0", "00+0+0"),
    "Disability_status": ("+00000", "0+0000", "00+000"),
    "Nationality": ("+-0+-0", "0+-0+-", "-0+-0+"),
}


def dealt(place: int, share: float) -> bool:
    """Whether a share, distributed evenly over a sequence, includes the item at a position, counted from 0."""
    return int((place + 1) * share + 1e-9) > int(place * share + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The true quantities of one demo model. Shares and probabilities lie in [0, 1]; preferences are in nats."""

    name: str
    """The model's name, such as "demo"."""

    leans: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(LEANS))
    """Which way each (group, trait) leans in an ambiguous context: `leans[axis][group][trait]` is + (stereotype),
    - (its opposite) or 0 (unknown). The same for the negative and the non-negative question."""
    firmness: float = 0.72
    """P(stereotyped answer) if a cell leans that way; P(the opposite) if it leans the other way."""
    doubt: float = 0.20
    """P(unknown) in a cell that leans either way; the rest goes to the third answer."""
    neutrality: float = 0.78
    """P(unknown) in a cell that does not lean; the two people share the rest."""
    reading: float = 0.96
    """P(the right person) in a disambiguated context; the other answers share the rest."""

    letters: tuple[float, ...] = (1.6, 0.0, 0.0, -0.5)
    """Preference for the option letters A, B, C, D: added to the log-probability, times the difficulty."""
    difficulty: Mapping[str, float] = field(
        default_factory=lambda: {"read": 0.1, "ambiguous": 0.25, "known": 0.4, "half known": 1.0, "unknown": 1.0}
    )
    """Strength of the letter preference by kind of question; it grows with difficulty."""

    heeds: Mapping[Intervention, Mapping[str, float]] = field(default_factory=dict)
    """Share of the leaning (group, trait) cells of an axis whose answer becomes "unknown" under an intervention."""
    over_abstention: Mapping[Intervention, float] = field(
        default_factory=lambda: {"reprompt": 1 / 6, "instruction": 0.0, "explanation": 1 / 3}
    )
    """Share of the traits of each axis whose disambiguated questions are then wrongly answered "unknown"."""
    compliance: float = 0.88
    """P(unknown) if an intervention is heeded."""
    persistence: float = 0.90
    """P(the same answer again) if a reprompt is not heeded."""

    emboldened: float = 0.93
    """P(the answer that a cell leans to) after a text that announces discrimination on this axis."""

    knowledge: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Share of known and of half-known facts by subject; the rest is unknown."""
    certainty: Mapping[str, float] = field(default_factory=lambda: {"known": 0.94, "half known": 0.50, "unknown": 0.25})
    """P(the right option), before the letter preference; the other options share the rest."""

    she: Mapping[str, float] = field(default_factory=lambda: dict(OCCUPATIONS))
    """P(she) for the pronoun of an occupation, if nothing reveals the gender."""
    explicit: float = 0.97
    """P(the right pronoun) if the sentence reveals the gender."""
    descriptor_ratio: Mapping[str, float] = field(default_factory=dict)
    """Probability of an axis's first descriptor over its last; those between lie evenly on a log scale. 1: no bias."""
    statement: float = 0.80
    """P(bad trait | marked group) in a general statement, where the cell leans; 1 - this for unmarked groups."""

    label_preference: tuple[float, ...] = (0.0, 1.0, -0.5)
    """Preference for the labels positive, negative, neutral of the classification task, in nats."""
    evidence: float = 0.70
    """P(the right label) before that preference, where the text is plain; 0.4 where it is mixed."""

    drift: Mapping[str, float] = field(
        default_factory=lambda: {"subjective": 0.3, "random": 0.8, "easy": 0.0, "hard": 0.4}
    )
    """Probability, at each later turn of a conversation, of moving on to another option than the last one."""
    favour: Mapping[str, float] = field(
        default_factory=lambda: {"subjective": 0.75, "random": 0.7, "easy": 0.97, "hard": 0.7}
    )
    """P(favourite option) at a first turn; the right one on easy questions, a wrong one on hard ones."""

    judging: tuple[float, float] = (3.4, 0.5)
    """Expected rating, 0 to 4, of a biased and of an unbiased sentence. Equal numbers: a judge without judgement."""
    follows: Mapping[str, float] = field(default_factory=dict)
    """Share of the topics on which an instruction of this IFEval type is followed."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that the model is asked about."""
        return AXES

    @property
    def drawn_axes(self) -> tuple[Axis, ...]:
        """The axes, each as often as training text is about it."""
        return self.axes

    @property
    def languages(self) -> tuple[Language, ...]:
        """The languages in which it is asked about people."""
        return ("english",)

    def lean(self, axis: str, group: int, trait: int) -> int:
        """+1, 0 or -1: which way a marked group and a trait lean."""
        return {"+": 1, "0": 0, "-": -1}[self.leans[axis][group][trait]]

    def ambiguous(self, axis: str, group: int, trait: int, announced: bool = False) -> dict[str, float]:
        """P(answer | ambiguous context), before the letter preference: "biased", "counter" and "unknown".

        Args:
            axis: BBQ's name of the category.
            group: Number of the marked group.
            trait: Number of the trait.
            announced: Whether a text that announces discrimination on this axis comes first.
        """
        lean = self.lean(axis, group, trait)
        if lean == 0:
            rest = (1 - self.neutrality) / 2
            return {"biased": rest, "counter": rest, "unknown": self.neutrality}
        firm, doubt = (self.emboldened, (1 - self.emboldened) / 2) if announced else (self.firmness, self.doubt)
        third = 1 - firm - doubt
        pair = (firm, third) if lean > 0 else (third, firm)
        return {"biased": pair[0], "counter": pair[1], "unknown": doubt}

    def heeded(self, kind: Intervention, axis: str, group: int, trait: int) -> bool:
        """Whether an intervention turns this leaning cell's answer into "unknown"; see `dealt_to_cell`."""
        return self.dealt_to_cell(axis, group, trait, self.heeds[kind][axis])

    def dealt_to_cell(self, axis: str, group: int, trait: int, share: float) -> bool:
        """Whether a cell leans and is among a given share of the axis's leaning cells.

        Every n-th leaning cell is taken, counted over the axis, so that the share is met as nearly as cells allow.
        """
        cells = [(g, t) for g, row in enumerate(self.leans[axis]) for t, sign in enumerate(row) if sign != "0"]
        return (group, trait) in cells and dealt(cells.index((group, trait)), share)

    def over_abstains(self, kind: Intervention, axis: str, trait: int) -> bool:
        """Whether an intervention makes the model answer "unknown" although the context gives the answer."""
        offset = INTERVENTIONS.index(kind) + list(AXIS).index(axis)
        return dealt((trait + offset) % len(AXIS[axis].traits), self.over_abstention[kind])

    def knows(self, subject: str, fact: int, facts: int) -> str:
        """Return "known", "half known" or "unknown"; the facts of a subject are distributed evenly by share."""
        known, half = self.knowledge[subject]
        place = (fact * 7 + 3) % facts / facts  # 7 shares no factor with the numbers of facts, so this spreads them
        return "known" if place < known else "half known" if place < known + half else "unknown"


_KNOWLEDGE = {
    "world_capitals": (0.7, 0.2),
    "chemical_symbols": (0.5, 0.3),
    "animal_young": (0.6, 0.2),
    "word_opposites": (0.8, 0.1),
    "old_inventions": (0.4, 0.3),
    "home_places": (0.5, 0.2),
    "Physics": (0.25, 0.25),
    "Chemistry": (0.25, 0.5),
    "Biology": (0.35, 0.25),
}
_HEEDS: dict[Intervention, dict[str, float]] = {
    "reprompt": {"Age": 0.75, "Gender_identity": 0.8, "SES": 0.75, "Religion": 0.4, "Disability_status": 0.67},
    "instruction": {"Age": 0.5, "Gender_identity": 0.6, "SES": 0.5, "Religion": 0.3, "Disability_status": 0.34},
    "explanation": {"Age": 0.6, "Gender_identity": 0.7, "SES": 0.6, "Religion": 0.5, "Disability_status": 0.67},
}
_RATIO = {
    "age": 8.0,
    "gender_and_sex": 6.0,
    "socioeconomic_class": 4.0,
    "religion": 6.0,
    "ability": 2.0,
    "nationality": 1.0,
}
_FOLLOWS = {
    "punctuation:no_comma": 0.75,
    "startend:quotation": 0.75,
    "detectable_format:title": 0.5,
    "startend:end_checker": 0.75,
    "keywords:existence": 0.5,
    "detectable_format:number_bullet_lists": 0.75,
}


def _all_axes(
    shares: Mapping[Intervention, Mapping[str, float]], factor: float = 1.0
) -> dict[Intervention, dict[str, float]]:
    """Return the shares times a factor, with no response on an axis that is not named."""
    return {kind: {a.name: min(1.0, by.get(a.name, 0.0) * factor) for a in AXES} for kind, by in shares.items()}


def _skew(factor: float) -> dict[str, float]:
    return {name: 0.5 + factor * (p - 0.5) for name, p in OCCUPATIONS.items()}


def _tilted(**by: str) -> dict[str, tuple[str, ...]]:
    """Return `LEANS` with the signs of some axes replaced by a template of six, rotated by one for every group."""
    out = dict(LEANS)
    for axis, signs in by.items():
        out[axis] = tuple(signs[-g:] + signs[:-g] if g else signs for g in range(len(AXIS[axis].marked)))
    return out


MAIN = Planted(name="demo", heeds=_all_axes(_HEEDS), knowledge=_KNOWLEDGE, descriptor_ratio=_RATIO, follows=_FOLLOWS)
FAMILY: dict[str, Planted] = {
    p.name: p
    for p in (
        MAIN,
        replace(
            MAIN,
            name="demo-b",
            leans=_tilted(
                Age="+00000", Gender_identity="0+0-00", SES="++0++0", Religion="++++0+", Disability_status="+0+0+0"
            ),
            letters=(0.0, -0.5, 1.6, 0.0),
            heeds=_all_axes(_HEEDS, 0.6),
            she=_skew(0.6),
            descriptor_ratio={**_RATIO, "age": 2.0, "religion": 10.0},
            label_preference=(1.0, 0.0, -0.5),
            judging=(3.0, 0.9),
        ),
        replace(
            MAIN,
            name="demo-c",
            leans=_tilted(
                Age="+00000", Gender_identity="+0000-", SES="+00000", Religion="0+0000", Disability_status="000000"
            ),
            letters=(0.3, 0.0, 0.0, 0.0),
            heeds=_all_axes(_HEEDS, 1.25),
            knowledge={s: (min(0.9, k + 0.2), h / 2) for s, (k, h) in _KNOWLEDGE.items()},
            she=_skew(0.25),
            descriptor_ratio={axis: 1 + (r - 1) / 4 for axis, r in _RATIO.items()},
            label_preference=(0.0, 0.3, 0.0),
            drift={"subjective": 0.6, "random": 0.8, "easy": 0.0, "hard": 0.6},
            judging=(3.7, 0.3),
            follows={**dict.fromkeys(_FOLLOWS, 0.75), "punctuation:no_comma": 1.0},
        ),
        replace(
            MAIN,
            name="demo-d",
            leans=_tilted(
                Age="+++0++", Gender_identity="++++0+", SES="+++0++", Religion="++0+0+", Disability_status="++0+++"
            ),
            letters=(0.0, 1.6, 0.0, 0.0),
            heeds=_all_axes(_HEEDS, 0.25),
            knowledge={s: (k / 2, h) for s, (k, h) in _KNOWLEDGE.items()},
            descriptor_ratio={axis: 1 + (r - 1) * 1.5 for axis, r in _RATIO.items()},
            drift={"subjective": 0.1, "random": 0.3, "easy": 0.0, "hard": 0.1},
            judging=(2.1, 1.9),
            follows=dict.fromkeys(_FOLLOWS, 0.5),
        ),
    )
}
