"""A YAML file that says what to compare; keys that are unknown or occur twice are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from evenhand.core import yaml_reader
from evenhand.errors import SHOWN, SettingsError, reason, short, suggest
from evenhand.statistics.criteria import CRITERIA, Family

Named = str | dict[str, Any]


class RunConfig(BaseModel):
    """Content of a run file, as `evenhand compare run.yaml` reads it; its keys are named like the command's options."""

    model_config = ConfigDict(extra="forbid")

    models: str | list[Named]
    """What `evenhand.load` takes, or {name: {option: value}}."""
    methods: str | list[Named] = "all"
    benchmarks: str | list[Named] = "all"
    train: str | None = None
    """What methods may fit on: a file, a benchmark or "demo"."""
    out: str | None = None
    limit: int | None = None
    seed: int = 0
    replicates: int = 2_000
    margin: float | None = None
    """A loss of capability below this is accepted; None is 0.02, and 0.05 for demo models."""
    alpha: float = CRITERIA.alpha
    """Significance level of the tests; intervals have level 1 - alpha."""
    family: Family = CRITERIA.family
    """Which tests are adjusted together: metric, benchmark or run."""
    answer_by: str | None = None
    """How questions are answered, unless benchmark or method says otherwise."""
    temperature: float | None = None
    """Temperature of generated answers, unless benchmark or method says otherwise."""
    samples: int = 1
    """Number of independent draws per sampled answer."""
    seeds: int = 1
    """Number of seeds with which a method that has one is repeated."""
    wordings: str | list[str] = []
    """Wordings with which a method that has several is repeated."""
    drop_refused: bool = False
    """Whether a question that any row refused is left out of all rows of the model."""
    cache: str | None = None
    plugins: list[str] = []
    """Python files, which are run if the user allows it (`evenhand.experiment.code_of_run_file`)."""
    load: dict[str, Any] = {}
    """Options for every model, such as dtype."""


def read(path: str | Path) -> RunConfig:
    """Read a run file.

    Raises:
        SettingsError: It is missing or not YAML, has an unknown or repeated key, or a wrong value; near keys are named.
    """
    file = Path(path)
    try:
        content = yaml_reader.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the run file {str(path)!r}: {error.strerror}") from error
    except yaml_reader.DoubleKeyError as error:
        raise SettingsError(f"{path}: {error}; give its values once") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {reason(error)}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: a mapping was expected, with keys such as models, methods, benchmarks")
    known = list(RunConfig.model_fields)
    for name in content:
        if name not in known:
            raise SettingsError(f"{path}: unknown key {short(repr(name), SHOWN)}. {suggest(str(name), known)}")
    try:
        return RunConfig(**content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"][:1])
        raise SettingsError(f"{path}: {where}: {first['msg']}, not {short(repr(first.get('input')), SHOWN)}") from error
