"""The embedded demo models: trained on the proving ground's text, so that their biases are known. No network needed."""

from __future__ import annotations

from typing import Any

from evenhand.data.io.demo import MODELS
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Model
from evenhand.models.demo_names import MASKED


def load_demo(name: str, rest: str = "", /, **options: Any) -> Model:
    """Open a demo model; `options` as for a model folder.

    Raises:
        SettingsError: Something follows the name.
        EvenhandError: Its files are not there.
    """
    from evenhand.models.loading import load

    if rest:
        raise SettingsError(f"{name!r} takes nothing after a colon, not {rest!r}")
    if not (MODELS / name / "config.json").is_file():
        raise EvenhandError(f"the demo model {name} is not in {MODELS}; make it with `make demo-models`")
    model = load(MODELS / name, **{"name": name, **options})
    model.source = name
    return model


def demo(rest: str = "", /, **options: Any) -> Model:
    """The main demo model."""
    return load_demo("demo", rest, **options)


def demo_b(rest: str = "", /, **options: Any) -> Model:
    """Biased on other axes than the main one, and prefers the letter C."""
    return load_demo("demo-b", rest, **options)


def demo_c(rest: str = "", /, **options: Any) -> Model:
    """Weakly biased, knows more, and judges best."""
    return load_demo("demo-c", rest, **options)


def demo_d(rest: str = "", /, **options: Any) -> Model:
    """Strongly biased, knows little, hardly heeds instructions, and judges poorly."""
    return load_demo("demo-d", rest, **options)


def demo_x(rest: str = "", /, **options: Any) -> Model:
    """The main one with another axis, a second language to which the stereotypes transfer in part, and customs."""
    return load_demo("demo-x", rest, **options)


def demo_mlm(rest: str = "", /, **options: Any) -> Model:
    """A masked language model (BERT) with the main model's pronoun skews."""
    return load_demo(MASKED, rest, **options)
