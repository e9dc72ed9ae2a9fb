"""Prompt packs: the texts that methods put to a model, one YAML file a language."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from evenhand.errors import DataError, UnknownNameError

FOLDER = Path(__file__).parent


class _Texts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1)


class SelfDebiasTexts(_Texts):
    """Gallegos et al. 2025: explanation and reprompting."""

    explain: str
    reprompt: str
    reprompt_open: str
    reprompt_stated: str
    reprompt_stated_open: str


class MoralTexts(_Texts):
    """Ganguli et al. 2023: moral self-correction."""

    instruction: str
    think: str
    decide: str
    decide_open: str


class IntentTexts(_Texts):
    """Anantaprayoon et al. 2025: intent-aware self-correction."""

    critique: str
    """With {asked}, {reasoning}, {answer} and {aspect}."""
    aspects: dict[str, str]
    feedback: str
    """One line of it, with {aspect}, {score} and {reason}."""
    refine: str
    """With {feedback}."""
    refine_open: str


class DecodingTexts(_Texts):
    """Schick et al. 2021: self-debiasing decoding."""

    prefix: str


class PromptPack(_Texts):
    """All texts in one language."""

    language: str
    self_debias: SelfDebiasTexts
    instructions: dict[str, str]
    """By name; with {axis}."""
    moral: MoralTexts
    intent: IntentTexts
    decoding: DecodingTexts
    axes: dict[str, str]
    """The word for an axis, by a benchmark's name of it."""
    any_axis: str
    """The word where no axis is asked for."""


def prompt_pack(name: str = "en") -> PromptPack:
    """A pack by language, or by the path of a YAML file with the same keys.

    Args:
        name: A shipped language, such as "en", or a file's path.

    Raises:
        UnknownNameError: Neither a shipped language nor a file.
        DataError: The file is not a prompt pack.
    """
    shipped = {path.stem: path for path in FOLDER.glob("*.yaml")}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise UnknownNameError("prompt pack", name, shipped)
    return _read(path)


@cache
def _read(path: Path) -> PromptPack:
    try:
        return PromptPack.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise DataError(f"{path} is not a prompt pack: {error}") from error
