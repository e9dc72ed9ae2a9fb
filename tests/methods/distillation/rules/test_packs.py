"""Reading rule packs, merging rules that share a word, and keeping cases apart."""

from pathlib import Path

import pytest

from evenhand.errors import DataError, UnknownNameError
from evenhand.methods.distillation.rules import RulePack, rule_pack
from evenhand.methods.distillation.rules.packs import FOLDER, case_of, components

HEAD = "language: en\naxis: gender\n"


def write(folder: Path, text: str, head: str = HEAD) -> Path:
    path = folder / "mine.yaml"
    path.write_text(head + text, encoding="utf-8")
    return path


def classes(pack: RulePack) -> dict[tuple[str, str], dict[str, tuple[str, ...]]]:
    return {(c.name, c.case): dict(c.groups) for c in pack.classes()}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_every_shipped_pack_reads(name: str) -> None:
    pack = rule_pack(name)
    assert pack.name == name
    assert all(len(c.groups) >= 2 and all(c.groups.values()) for c in pack.classes())


def test_english_pronouns_merge_where_they_share_a_word() -> None:
    assert classes(rule_pack("en_pronouns")) == {
        ("subject", "lower"): {"male": ("he",), "female": ("she",)},
        ("subject", "capital"): {"male": ("He",), "female": ("She",)},
        ("object+possessive+possessive_alone", "lower"): {"male": ("him", "his"), "female": ("her", "hers")},
        ("object+possessive", "capital"): {"male": ("Him", "His"), "female": ("Her",)},
        ("reflexive", "lower"): {"male": ("himself",), "female": ("herself",)},
    }


def test_a_chain_of_shared_words_is_one_class(tmp_path: Path) -> None:
    """(a, b) and (c, d) meet only by the last pair (c, b); (p, q) stays alone."""
    pack = rule_pack(
        write(
            tmp_path,
            "rules:\n"
            "  one: {groups: {x: [a], y: [b]}, capitalise: false}\n"
            "  other: {groups: {x: [p], y: [q]}, capitalise: false}\n"
            "  three: {groups: {x: [c], y: [d]}, capitalise: false}\n"
            "  link: {groups: {x: [c], y: [b]}, capitalise: false}\n",
        )
    )
    assert classes(pack) == {
        ("one+three+link", "lower"): {"x": ("a", "c"), "y": ("b", "d")},
        ("other", "lower"): {"x": ("p",), "y": ("q",)},
    }


def test_components_by_hand() -> None:
    assert components(["ab", "cd", "ef", "bc", "g"]) == [[0, 1, 3], [2], [4]]
    assert components([]) == []


def test_cases_never_meet(tmp_path: Path) -> None:
    pack = rule_pack(write(tmp_path, "rules:\n  r: {groups: {m: [he, He, HE], f: [she, They, SHE]}}\n"))
    assert classes(pack) == {
        ("r", "lower"): {"m": ("he",), "f": ("she",)},
        ("r", "capital"): {"m": ("He",), "f": ("She", "They")},
        ("r", "upper"): {"m": ("HE",), "f": ("SHE",)},
    }
    assert [case_of(word) for word in ("i", "I", "US", "Us", "'s")] == ["lower", "capital", "upper", "capital", "lower"]


def test_hash_follows_the_content(tmp_path: Path) -> None:
    rules = "rules:\n  r: {groups: {m: [he], f: [she]}}\n"
    first = rule_pack(write(tmp_path, rules)).hash
    (tmp_path / "b").mkdir()
    assert rule_pack(write(tmp_path / "b", rules)).hash == first
    assert rule_pack(write(tmp_path / "b", rules + "evidence: {m: [man]}\n")).hash != first


def test_evidence_has_the_words_themselves_and_the_lists() -> None:
    dutch = rule_pack("nl_pronouns").evidence_words()
    assert {"hij", "hemzelf", "man"} <= set(dutch["male"])
    assert "zij" not in dutch["female"] and "vrouw" in dutch["female"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules:\n  r: {groups: {m: [he]}}\n", "at least 2"),
        ("rules:\n  r: {groups: {m: [he], f: []}}\n", "group f has no words"),
        ("rules:\n  r: {groups: {m: [he], f: [she, he]}}\n", "'he' is in group m and in group f"),
        ("rules:\n  r: {groups: {m: [he], f: [she]}, capitals: true}\n", "capitals"),
        ("rules:\n  r: {groups: {m: [he], f: [the lady]}}\n", "'the lady' of group f"),
        ("rules:\n  r: {groups: {m: [he, Sir], f: [she]}, capitalise: false}\n", "no capital-case word in group f"),
        ("rules:\n  r: {groups: {m: [he], f: [she]}, prior: {m: 0.5, f: 0.6}}\n", "sum to 1"),
        ("rules:\n  r: {groups: {m: [he], f: [she]}, prior: {m: 1}}\n", "the groups are"),
        ("rules:\n  r: {groups: {m: [he], f: [she]}}\nevidence: {x: [man]}\n", "no rule has as a group"),
        ("rules:\n  r: {groups: {m: [he], f: [she]}, evidence: {x: [man]}}\n", "which are not groups"),
        ("rules:\n  r: {groups: {m: [he], f: [she]}}\nnot_evidence: [ze]\n", "not_evidence has ['ze']"),
        ("rules:\n  r: {groups: {m: [he], f: [she]}}\n  r: {groups: {m: [him], f: [her]}}\n", "'r' occurs twice"),
        (
            "rules:\n  r: {groups: {m: [no], f: [she]}}\n",
            "rules.r.groups.m.0: Input should be a valid string",
        ),  # YAML reads a bare no as False
        ("rules: {}\n", "rules"),
        ("rules:\n  a: {groups: {m: [him], f: [her]}}\n  b: {groups: {f: [him], m: [he]}}\n", "'him' is in group"),
        (
            "rules:\n  a: {groups: {m: [him], f: [her]}, prior: {m: 1, f: 0}}\n  b: {groups: {m: [his], f: [her]}}\n",
            "priors differ",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as error:
        rule_pack(path)
    assert said in str(error.value) and str(path) in str(error.value)


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="en_pronouns"):
        rule_pack("en_pronoun")


def test_no_yaml_and_no_text_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a rule pack"):
        rule_pack(write(tmp_path, "rules: [\n"))
    with pytest.raises(DataError, match="is not a rule pack"):
        rule_pack(write(tmp_path, "", head=""))
