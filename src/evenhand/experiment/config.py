"""One YAML file that says what to compare; keys that are unknown or occur twice are refused."""

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
    """What `evenhand compare run.yaml` reads; the same names as the options of `evenhand compare`."""

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
    """A loss of capability below this is accepted; None is 0.02, and 0.05 of demo models."""
    alpha: float = CRITERIA.alpha
    """Level of the tests; intervals have level 1 - alpha."""
    family: Family = CRITERIA.family
    """Which tests are adjusted together: metric, benchmark or run."""
    answer_by: str | None = None
    """How questions are answered where neither benchmark nor method says otherwise."""
    temperature: float | None = None
    """Temperature of generated answers, likewise."""
    samples: int = 1
    """How many independent draws of every sampled answer are taken."""
    seeds: int = 1
    """How many seeds a method that has one is repeated with."""
    wordings: str | list[str] = []
    """Wordings that a method which has several is repeated with."""
    drop_refused: bool = False
    """Whether a question that any row refused is left out of all rows of the model."""
    cache: str | None = None
    plugins: list[str] = []
    """Python files, which are run where the user allows it (`evenhand.experiment.code_of_run_file`)."""
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
        raise SettingsError(f"{path} is no YAML: {reason(error)}") from error
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
