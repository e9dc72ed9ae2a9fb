"""Stereotype benchmarks made from the text world's own sentences, so that every demo model has planted answers.

Sets in the formats of StereoSet, CrowS-Pairs, Winogender, WinoBias and RedditBias. The models know only the
sentences of the text world, so some sets are approximations:

- StereoSet: "intersentence" is a sentence's beginning and its continuation, as the models never see two sentences in
  a row. The unrelated option is not a sentence of the text world; its planted probability is 0.
- Winogender: no sentence has a second person. The control, in which the occupation is to decide nothing, are sentences
  that tell the gender ("The nurse, who is a man, said that ..."); their pronoun means the occupation all the same. The
  neutral sentence, with "this person", is not a sentence of the text world either.
- WinoBias: one occupation a sentence; the other one is that of the partner sentence. Type 1 leaves the gender open,
  type 2 tells it, half of the time against the stereotype. The models never learned the question "who is meant?", so
  only the comparison of whole sentences has a planted answer.
- RedditBias: the groups are the proving ground's, and a "comment" is what is said about one group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from evenhand.data.redditbias import DEMO_AXES
from evenhand.proving_ground.generator.planted import MAIN
from evenhand.proving_ground.generator.words import (
    AXIS,
    EXPLICIT_FRAMES,
    OCCUPATIONS,
    PRONOUN_FRAMES,
    STATES,
    Axis,
    Group,
    Trait,
)

Table = list[list[str]]
EVEN = 0.5
"""Share of women in an occupation without a stereotype."""


def statement(group: Group, trait: str) -> str:
    """Return a statement of the text world about a group, such as "Old people are forgetful."."""
    return f"{group.plural} are {trait}."


def jobs(*, women: bool) -> list[str]:
    """Return occupations that are mostly women's, or mostly men's; the most one-sided come first."""
    sided = {job: p for job, p in OCCUPATIONS.items() if p != EVEN and (p > EVEN) == women}
    return sorted(sided, key=lambda job: -abs(sided[job] - EVEN))


# ------------------------------------------------------------------------------------------------- stereoset

STEREOSET_AXES = {"Gender_identity": "gender", "Religion": "religion", "Nationality": "nationality"}
"""Bias type by axis; occupations are "profession"."""
SENSELESS = ("bridge", "garden", "market", "museum", "station", "office")
"""Words that the models know, but never in place of a trait or a pronoun."""


def stereoset_rows() -> list[dict[str, str]]:
    """Return the rows of the flat file.

    Occupations occur once as each kind. Of a group, only traits on which the main model leans are taken, since a model
    that leans neither way finds both texts equally likely, and the noise of training would decide.
    """
    rows = [row for number, job in enumerate(jobs(women=True) + jobs(women=False)) for row in _profession(number, job)]
    for name, bias_type in STEREOSET_AXES.items():
        axis = AXIS[name]
        for (g, group), (t, trait) in product(enumerate(axis.marked), enumerate(axis.traits)):
            if MAIN.lean(name, g, t):
                rows.append(_group_row(bias_type, group, trait, t))
    return rows


def _profession(number: int, job: str) -> Iterator[dict[str, str]]:
    state, senseless = STATES[number % len(STATES)], SENSELESS[number % len(SENSELESS)]
    pronouns = ("she", "he") if OCCUPATIONS[job] > EVEN else ("he", "she")
    said, left = (frame.replace("{occupation}", job).replace("{state}", state) for frame in PRONOUN_FRAMES[:2])
    texts = [said.format(pronoun=word) for word in (*pronouns, senseless)]
    yield _stereoset("intrasentence", job, "profession", said.format(pronoun="BLANK"), texts)
    before, after = left.split(" {pronoun}")
    yield _stereoset("intersentence", job, "profession", before, [word + after for word in (*pronouns, senseless)])


def _group_row(bias_type: str, group: Group, trait: Trait, number: int) -> dict[str, str]:
    words = (trait.bad, trait.good, SENSELESS[number % len(SENSELESS)])
    if number % 2:
        return _stereoset("intersentence", group.plural, bias_type, f"{group.plural} are", [f"{w}." for w in words])
    texts = [statement(group, word) for word in words]
    return _stereoset("intrasentence", group.plural, bias_type, statement(group, "BLANK"), texts)


def _stereoset(kind: str, target: str, bias_type: str, context: str, texts: Sequence[str]) -> dict[str, str]:
    labels = ("stereotype", "anti-stereotype", "unrelated")
    head = {"type": kind, "target": target, "bias_type": bias_type, "context": context}
    return head | dict(zip(labels, texts, strict=True))


# ----------------------------------------------------------------------------------------------- crows_pairs

CROWS_TYPES = {
    "Age": ("age", 6),
    "Gender_identity": ("gender", 5),
    "SES": ("socioeconomic", 4),
    "Religion": ("religion", 6),
    "Disability_status": ("disability", 3),
    "Nationality": ("nationality", 3),
}
"""Bias type and number of traits by axis, chosen so that the types differ in size."""
CROWS_COLUMNS = (
    "",
    "sent_more",
    "sent_less",
    "stereo_antistereo",
    "bias_type",
    "annotations",
    "anon_writer",
    "anon_annotators",
)


def crows_pairs_table() -> Table:
    """Return the csv file, with its header: every marked group and trait in both directions.

    In one direction the marked group has the bad trait and in the other the good one, so that the frequencies of the
    two groups cancel out of the mean difference.
    """
    rows = [row for name, (bias_type, traits) in CROWS_TYPES.items() for row in _crows(AXIS[name], bias_type, traits)]
    return [list(CROWS_COLUMNS), *([str(n), *row] for n, row in enumerate(rows))]


def counterpart(axis: Axis, group: Group) -> Group:
    """Return the unmarked group of a pair: never one as frequent as the marked one, so that no pair is a tie."""
    return axis.unmarked[1 if len(group.people) > 1 else 0]


def _crows(axis: Axis, bias_type: str, traits: int) -> Iterator[list[str]]:
    made_up = [f"[['{bias_type}']]", "demo", "[]"]
    for group, trait in product(axis.marked, axis.traits[:traits]):
        other = counterpart(axis, group)
        yield [statement(group, trait.bad), statement(other, trait.bad), "stereo", bias_type, *made_up]
        yield [statement(other, trait.good), statement(group, trait.good), "antistereo", bias_type, *made_up]


# ------------------------------------------------------------------------------------------------ winogender

GENDERS = ("male", "female", "neutral")
PRONOUNS = ("he", "she", "this person")
ABOUT = {"said": PRONOUN_FRAMES[0], "left": PRONOUN_FRAMES[1]}
CONTROLS = {"said": EXPLICIT_FRAMES[0], "is": EXPLICIT_FRAMES[1]}
"""Sentences by the name used in place of Winogender's other person."""


def winogender_sentences() -> Table:
    """Return `all_sentences.tsv`, with its header: two sentences and two controls of every occupation."""
    table = [["sentid", "sentence"]]
    for number, job in enumerate(OCCUPATIONS):
        state = STATES[number % len(STATES)]
        for answer, frames in enumerate((ABOUT, CONTROLS)):
            for (name, frame), (gender, pronoun) in product(frames.items(), zip(GENDERS, PRONOUNS, strict=True)):
                text = frame.format(occupation=job, pronoun=pronoun, state=state, gender=told_gender(number))
                table.append([f"{job}.{name}.{answer}.{gender}.txt", text])
    return table


def told_gender(number: int) -> str:
    """Return the gender in an occupation's control: in turns, so that it hardly depends on the share of women."""
    return ("woman", "man", "man", "woman")[number % 4]


def winogender_statistics() -> Table:
    """Return `occupations-stats.tsv`: shares in texts are the main model's P(she), those at work the same in tenths."""
    header = ["occupation", "bergsma_pct_female", "bls_pct_female", "bls_year"]
    return [header, *([job, f"{100 * p:g}", f"{10 * round(10 * p)}", "0"] for job, p in OCCUPATIONS.items())]


# -------------------------------------------------------------------------------------------------- winobias

WINOBIAS_FRAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "type1": {"test": PRONOUN_FRAMES[:2], "dev": PRONOUN_FRAMES[2:]},
    "type2": {"test": EXPLICIT_FRAMES[:1], "dev": EXPLICIT_FRAMES[1:]},
}


def winobias_files() -> dict[str, str]:
    """Return lines by file name; odd ones are about an occupation of women, the next one about its partner."""
    return {
        f"{side}_stereotyped_{kind}.txt.{split}": _winobias(frames, anti=side == "anti")
        for kind, splits in WINOBIAS_FRAMES.items()
        for split, frames in splits.items()
        for side in ("pro", "anti")
    }


def _winobias(frames: Sequence[str], *, anti: bool) -> str:
    partners = list(zip(jobs(women=True), jobs(women=False), strict=False))  # there are more jobs of men
    lines: list[str] = []
    for frame, (number, pair) in product(frames, enumerate(partners)):
        marked = frame.replace("The {occupation}", "[The {occupation}]").replace("{pronoun}", "[{pronoun}]")
        for job, pronoun in zip(pair, ("he", "she") if anti else ("she", "he"), strict=True):
            state, gender = STATES[number % len(STATES)], ("woman", "man")[number % 2]
            text = marked.format(occupation=job, pronoun=pronoun, state=state, gender=gender)
            lines.append(f"{len(lines) + 1} {text}\n")
    return "".join(lines)


# ------------------------------------------------------------------------------------------------ redditbias

REDDIT_GROUPS = {
    "gender": ("Gender_identity", ((0, 0),)),
    "age": ("Age", ((1, 0), (2, 1))),
    "class": ("SES", ((1, 0), (2, 1))),
    "religion": ("Religion", ((1, 0), (2, 1))),
}
"""Pairs of a marked and an unmarked group whose names have the same number of tokens, as perplexities are per token.
They are also equally frequent, except for gender, where no such pair is equally long."""
REDDIT_COMMENTS = {"test": ((0, 1, 2), (3,)), "valid": ((4, 5),)}
"""Traits that one comment is about, by split."""


def redditbias_tables() -> dict[str, Table]:
    """Return the csv files by path, with their headers."""
    tables: dict[str, Table] = {}
    for (axis, groups), split in product(DEMO_AXES.items(), REDDIT_COMMENTS):
        sides = zip(groups, _reddit(axis, split), strict=True)
        tables |= {f"{axis}/reddit_comments_{axis}_{g}_biased_{split}_reduced.csv": table for g, table in sides}
    return tables


def _reddit(axis: str, split: str) -> tuple[Table, Table]:
    """Return the phrases and their twins, row by row."""
    name, pairs = REDDIT_GROUPS[axis]
    target, counter = DEMO_AXES[axis]
    phrases = [["id", "attribute_in_window", "comment", "comments_processed", "bias_sent", "bias_phrase", "perplexity"]]
    twins = [["initial_demo", "replaced_demo", "comments", "comments_processed", "perplexity"]]
    for (m, u), traits in product(pairs, REDDIT_COMMENTS[split]):
        marked, unmarked = AXIS[name].marked[m], AXIS[name].unmarked[u]
        said = [statement(marked, AXIS[name].traits[t].bad) for t in traits]
        for t, text in zip(traits, said, strict=True):
            phrases.append([f"demo{len(phrases)}", "True", " ".join(said), text, "1", "1", ""])
            swapped = statement(unmarked, AXIS[name].traits[t].bad)
            twins.append([f"['{target}']", f"['{counter}']", text, swapped, ""])
    return phrases, twins
