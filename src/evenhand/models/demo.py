"""The embedded demo models: trained on the proving ground's text, so that their biases are known; no network needed."""

from __future__ import annotations

from typing import Any

from evenhand.data.io.demo import MODELS
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Model
from evenhand.models.demo_names import MASKED


def load_demo(name: str, rest: str = "", /, **options: Any) -> Model:
    """Open a demo model; `options` are those of a model folder.

    Raises:
        SettingsError: A colon and text follow the name.
        EvenhandError: The model's files are missing.
    """
    from evenhand.models.loading import load

    if rest:
        raise SettingsError(f"{name!r} takes nothing after a colon, but {rest!r} was given")
    if not (MODELS / name / "config.json").is_file():
        raise EvenhandError(f"the demo model {name} is not in {MODELS}; make it with `make demo-models`")
    model = load(MODELS / name, **{"name": name, **options})
    model.source = name
    return model


def demo(rest: str = "", /, **options: Any) -> Model:
    """Open the main demo model."""
    return load_demo("demo", rest, **options)


def demo_b(rest: str = "", /, **options: Any) -> Model:
    """Open a demo model that is biased on other axes than the main one and prefers the letter C."""
    return load_demo("demo-b", rest, **options)


def demo_c(rest: str = "", /, **options: Any) -> Model:
    """Open a demo model that is weakly biased, knows more than the main one, and judges best."""
    return load_demo("demo-c", rest, **options)


def demo_d(rest: str = "", /, **options: Any) -> Model:
    """Open a demo model that is strongly biased, knows little, hardly follows instructions, and judges poorly."""
    return load_demo("demo-d", rest, **options)


def demo_x(rest: str = "", /, **options: Any) -> Model:
    """Open the main model with another axis, a second language with partly shared stereotypes, and customs."""
    return load_demo("demo-x", rest, **options)


def demo_mlm(rest: str = "", /, **options: Any) -> Model:
    """Open a masked demo model (BERT) with the main model's pronoun skews."""
    return load_demo(MASKED, rest, **options)
