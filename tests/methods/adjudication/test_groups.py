"""Prompt groups: what is split, and that nothing leaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from evenhand.data.holistic_bias import Descriptor, Noun, Parts, Template, load_parts
from evenhand.errors import SettingsError
from evenhand.methods.adjudication._groups import Prompt, family, prompts_of, refuse_leaks, split_names

SHARES = (0.6, 0.2, 0.2)


def split_of(names: int, shares: tuple[float, float, float] = SHARES) -> Counter[str]:
    return Counter(split_names([f"n{i}" for i in range(names)], shares, 0, "x").values())


def test_shares_are_met_as_nearly_as_whole_names_allow() -> None:
    assert split_of(10) == {"fit": 6, "validation": 2, "evaluation": 2}
    assert split_of(5) == {"fit": 3, "validation": 1, "evaluation": 1}
    assert split_of(10, (0.5, 0.0, 0.5)) == {"fit": 5, "evaluation": 5}


def test_few_names_go_to_fit_and_evaluation_first() -> None:
    assert split_of(1) == {"fit": 1}
    assert split_of(2) == {"fit": 1, "evaluation": 1}
    assert split_of(3) == {"fit": 1, "validation": 1, "evaluation": 1}


def test_a_split_hangs_on_the_seed_and_not_on_the_order_of_names() -> None:
    names = [f"n{i}" for i in range(30)]
    assert split_names(names, SHARES, 1, "x") == split_names(reversed(names), SHARES, 1, "x")
    assert split_names(names, SHARES, 1, "x") != split_names(names, SHARES, 2, "x")


def test_no_descriptor_or_template_is_in_two_parts() -> None:
    prompts = prompts_of(load_parts("demo", "1.0").parts, shares=SHARES, seed=0, nouns=2, draws=2)
    for of in (lambda p: p.descriptor, lambda p: family(p.template)):
        parts: dict[str, set[str]] = {}
        for p in prompts:
            parts.setdefault(of(p), set()).add(p.split)
        assert all(len(found) == 1 for found in parts.values())
    assert {p.split for p in prompts} == {"fit", "validation", "evaluation"}
    assert len({p.id for p in prompts}) == len(prompts)
    refuse_leaks(prompts)


def test_templates_that_differ_in_a_greeting_are_one() -> None:
    assert family("Hi! I'm {noun_phrase}.") == family("I'm {noun_phrase}.") == family("hey there, I'm {noun_phrase}.")
    assert family("I love {plural_noun_phrase}.") != family("I'm {noun_phrase}.")
    prompts = prompts_of(load_parts("demo", "1.0").parts, shares=SHARES, seed=0)
    greeted = {p.split for p in prompts if "I'm {noun_phrase}" in p.template}
    assert len(greeted) == 1


def test_a_leak_is_refused() -> None:
    prompts = prompts_of(load_parts("demo", "1.0").parts, shares=SHARES, seed=0)
    fit = next(p for p in prompts if p.split == "fit")
    with pytest.raises(SettingsError, match="the descriptor"):
        refuse_leaks([*prompts, replace(fit, split="evaluation", template="Other {noun_phrase}.")])
    with pytest.raises(SettingsError, match="the template"):
        refuse_leaks([*prompts, replace(fit, split="evaluation", descriptor="other")])


def test_a_descriptor_of_two_axes_has_one_part() -> None:
    names = ("a", "b", "c", "d")
    parts = Parts(
        (Noun("neutral", "person", "people"),),
        tuple(Descriptor(axis, "x", n, "(none)", "a", "no_data") for axis in ("one", "two") for n in names),
        (),
        tuple(Template(f"{w} {{noun_phrase}}.", False, False) for w in ("I am", "Meet", "See", "Ask")),
    )
    refuse_leaks(prompts_of(parts, shares=SHARES, seed=3))


def test_counterparts_differ_in_the_descriptor_alone() -> None:
    prompts = [p for p in prompts_of(load_parts("demo", "1.0").parts, shares=SHARES, seed=0) if p.split == "fit"]
    groups: dict[str, list[Prompt]] = {}
    for p in prompts:
        groups.setdefault(p.group, []).append(p)
    one = next(iter(groups.values()))
    assert len({p.descriptor for p in one}) == len(one) > 3
    assert {p.text.replace(p.descriptor, "*").replace("an *", "a *") for p in one} == {
        one[0].text.replace(one[0].descriptor, "*").replace("an *", "a *")
    }


def test_unknown_nouns_and_axes_are_refused() -> None:
    parts = load_parts("demo", "1.0").parts
    with pytest.raises(SettingsError, match="no noun 'wizard'"):
        prompts_of(parts, shares=SHARES, seed=0, nouns=("wizard",))
    with pytest.raises(SettingsError, match="axes"):
        prompts_of(parts, shares=SHARES, seed=0, axes=("hair",))
