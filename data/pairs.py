"""Pairs of texts for methods to fit on, made of what the benchmarks read."""

from __future__ import annotations

import re
from typing import Literal

from evenhand.core.draws import item_hash
from evenhand.core.sequences import common_prefix_length
from evenhand.data.stereoset import Example
from evenhand.data.winobias import Twins
from evenhand.data.winogender import Schema, Shares
from evenhand.interfaces import Pair, Question
from evenhand.renaming import old_arguments

TWO_OPTIONS = "{context} {question} Choose among the following two options: A: {a}; B: {b}. Answer: Option"
"""How Dige et al. 2024 (arXiv 2406.13551) put BBQ to decoders; the letter is the continuation."""


@old_arguments(topic="axis")
def apart(stereotyped: str, other: str, axis: str = "", name: str = "") -> Pair | None:
    """The pair of two texts: the words that both begin with, those that differ, those that both end with.

    Where one text only adds words to the other, a word that both share goes to either, so that neither side is empty.

    Returns:
        The pair, whose parts put together are the two texts; None where these have the same words.
    """
    one, two = (re.findall(r"\s*\S+", text) for text in (stereotyped, other))
    bare = [[word.strip() for word in words] for words in (one, two)]
    if bare[0] == bare[1]:
        return None
    most = min(len(one), len(two))
    begin = common_prefix_length(bare[0], bare[1])
    end = min(common_prefix_length(bare[0][::-1], bare[1][::-1]), most - begin)
    if begin + end == most:
        begin, end = (begin, end - 1) if end else (begin - 1, 0)
    begin = max(begin, 0)
    parts = ["".join(words[begin : len(words) - end]) for words in (one, two)]
    return Pair(parts[0], parts[1], "".join(one[:begin]), "".join(one[len(one) - end :]), axis, name)


def stereoset_pair(example: Example, name: str) -> Pair | None:
    """Stereotype and anti-stereotype of one context; the unrelated text is not used."""
    if example.kind == "intrasentence":
        return apart(example.stereotype, example.anti_stereotype, example.bias_type, name)
    stereotyped, other = (f" {text}" for text in (example.stereotype, example.anti_stereotype))
    return Pair(stereotyped, other, example.context, "", example.bias_type, name)


def stereoset_text(example: Example) -> str:
    """The example as a text that has the stereotype: within a sentence filled in, between sentences after its context.

    Dige et al. 2024 (arXiv 2406.13551) fine-tune on these for their task vectors.
    """
    return example.stereotype if example.kind == "intrasentence" else f"{example.context} {example.stereotype}"


def winogender_pair(
    schema: Schema, shares: Shares, name: str, majority_by: Literal["bls", "texts"] = "bls"
) -> Pair | None:
    """The sentence with the pronoun of the occupation's majority, and with the other one.

    Sentences whose pronoun means the other person are pairs as well: the words stand together all the same.

    Args:
        schema: The sentences.
        shares: Shares of women in the occupation.
        name: The pair's id.
        majority_by: "bls" goes by the labour statistics; where an occupation is half and half there, by the texts, and
            it counts as men's where these are half and half too. "texts" goes by the texts, and half and half counts as
            women's: the rule of the released code of PCGU (Yu et al. 2023; dataset.py, `WGDataset`), where
            bergsma_pct_female below 50 makes the female sentence the disadvantaged one.
    """
    labour = shares.bls if shares.bls != 0.5 else shares.texts
    women = shares.texts >= 0.5 if majority_by == "texts" else labour > 0.5
    both = (schema.female, schema.male) if women else (schema.male, schema.female)
    return apart(*both, "gender", name)


def winobias_pair(twins: Twins, name: str) -> Pair | None:
    """The sentence with the stereotype, and its twin against it."""
    return apart(twins.pro.sentence, twins.anti.sentence, "gender", name)


def question_pair(question: Question, target: int, unknown: int, seed: int = 0) -> Pair:
    """A BBQ question without its unknown option, in the form of Dige et al. 2024; letters are the continuations.

    Args:
        question: With three options.
        target: The answer that agrees with the stereotype.
        unknown: The answer that says that it cannot be known.
        seed: Seed of which person is A, by a hash of the question's id, so that it depends on no other question.
    """
    (counter,) = set(range(3)) - {target, unknown}
    turned = item_hash(seed, question.id)[0] % 2
    first, second = (counter, target) if turned else (target, counter)
    prompt = TWO_OPTIONS.format(
        context=question.context, question=question.question, a=question.options[first], b=question.options[second]
    )
    letters = (" B", " A") if turned else (" A", " B")
    return Pair(*letters, prompt=prompt, axis=question.axis, id=question.id)
