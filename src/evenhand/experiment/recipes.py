"""Recipes: one YAML file for each published row, with the model, the method, the data, the figure and its source.

The shipped ones are in data/recipes. A recipe is data: unknown keys are refused, models are named as on the hub, and
nothing in it loads code or names a place on a machine. The user's own data is under $EVENHAND_DATA.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from evenhand.core import yaml_reader
from evenhand.data.io.locate import FOLDER_VARIABLE
from evenhand.data.sets import DATASETS
from evenhand.errors import SHOWN, SettingsError, UnknownNameError, reason, short, suggest

FOLDER = Path(__file__).parents[1] / "data" / "recipes"
DATA, HERE = f"${FOLDER_VARIABLE}", "$RECIPES"
"""Placeholders in a recipe for the folder of the data and for that of the shipped recipes."""
MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
PLACE = re.compile(
    r"""(^|['"=(\[{:,;&+])\s*(/|~|\\|[A-Za-z]:[/\\])   # a path from a root or a home, wherever a value begins
    |(?<![\w.])\.\.($|[/\\\s'")\]},;&+])              # or one that leaves its folder""",
    re.VERBOSE,
)
"""A path of a machine, or one that leaves its folder, within a text."""
FORBIDDEN = ("trust_remote_code", "trust_folder")

Named = str | dict[str, dict[str, Any]]
"""A method or benchmark as `compare` takes it: "name(key=value)", or {name: {key: value}}."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1, allow_inf_nan=False)


class RecipeModel(_Part):
    """The model of a recipe."""

    name: str
    """Its name on the hub."""
    revision: str | None = None
    """Commit on the hub; None if the source names none, and the newest is taken."""
    dtype: Literal["float32", "bfloat16", "float16"]
    parameters: Annotated[float, Field(gt=0)]
    """Number of parameters, rounded, as its card says; for the estimates alone."""

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not MODEL.fullmatch(name):
            raise ValueError("give a name as on the hub, without options; `evenhand reproduce --model` takes a folder")
        return name


class DataNeed(_Part):
    """Data needed before a run: a data set of `evenhand data list`, or a file or folder of the user's own."""

    name: str | None = None
    file: str | None = None
    """Its path under $EVENHAND_DATA."""
    how: str = "see `evenhand data list`"
    """How to get it, or what it has to contain."""

    @model_validator(mode="after")
    def _one(self) -> DataNeed:
        if (self.name is None) == (self.file is None):
            raise ValueError("give either name (a data set) or file (a path under $EVENHAND_DATA)")
        if self.name is not None and self.name not in DATASETS:
            raise ValueError(str(UnknownNameError("data set", self.name, DATASETS)))
        return self


class Work(_Part):
    """Work to compute, in tokens, from which the hours are estimated."""

    what: str
    count: Annotated[float, Field(gt=0)]
    """Texts, questions or examples, each with the tokens below."""
    read: Annotated[float, Field(ge=0)] = 0
    """Tokens read."""
    written: Annotated[float, Field(ge=0)] = 0
    """Tokens written, at most."""
    trained: Annotated[float, Field(ge=0)] = 0
    """Tokens trained on."""
    parameters: Annotated[float, Field(gt=0)] | None = None
    """Parameters of another model than the recipe's, such as a student."""


class PublishedRow(_Part):
    """One figure: where to find it in a run, what was published, and what counts as the same."""

    name: str
    benchmark: str
    """A key of the recipe's benchmarks."""
    method: str = "none"
    """A key of the recipe's methods; none is the baseline."""
    metric: str
    group: str = "overall"
    of: Literal["value", "difference", "ratio"] = "value"
    """The metric itself, its difference from the baseline's, or its ratio to it."""
    published: float | None = None
    """The published figure; None if none was obtained."""
    where: str = ""
    """Where the source gives the figure."""
    tolerance: Annotated[float, Field(ge=0)] | None = None
    """Largest distance from the published figure that counts as the same."""
    accepted: tuple[float, float] | None = None
    """Lowest and highest value that is accepted, instead of a tolerance."""
    why: str = ""
    """Who chose the tolerance, and why."""

    @model_validator(mode="after")
    def _stated(self) -> PublishedRow:
        if self.published is not None and not self.where:
            raise ValueError(f"row {self.name!r}: say where the published figure stands (where)")
        if self.tolerance is not None and self.accepted is not None:
            raise ValueError(f"row {self.name!r}: give tolerance or accepted, not both")
        judged = self.tolerance is not None or self.accepted is not None
        if judged and (self.published is None or not self.why):
            raise ValueError(f"row {self.name!r}: what is judged needs a published figure, and a reason (why)")
        if self.accepted is not None and self.accepted[0] > self.accepted[1]:
            low, high = self.accepted
            raise ValueError(f"row {self.name!r}: accepted is from {low} down to {high}; give the lower bound first")
        if self.of != "value" and self.method == "none":
            raise ValueError(f"row {self.name!r}: {self.of} is of a method against its baseline, not of none")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest value that counts as the published one; None if it is not judged."""
        if self.tolerance is None or self.published is None:
            return self.accepted
        return self.published - self.tolerance, self.published + self.tolerance


class PublishedOrder(_Part):
    """Rows whose values have to be in the order of their published figures, from the lowest to the highest."""

    name: str
    rows: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of rows of the recipe, each with a published figure."""
    apart: Annotated[float, Field(ge=0)] = 0
    """Published figures that differ by no more than this are not distinguished: either may be the higher one."""
    why: str
    """Who chose the criterion, and why figures so close are not distinguished."""


class RunSettings(_Part):
    """Options of `compare`, with the same meaning."""

    seed: int = 0
    limit: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    samples: Annotated[int, Field(ge=1)] = 1
    answer_by: str | None = None
    drop_refused: bool | None = None
    """Whether a question that any row refused is left out of all rows; None for the default of `compare`."""


class Smoke(_Part):
    """The same recipe on a demo model and a few items: it shows that everything runs, and its figures mean nothing."""

    model: Literal["demo", "demo-b", "demo-c", "demo-d", "demo-mlm"] = "demo"
    methods: dict[str, Named] = {}
    """Methods, by the keys of the recipe's methods."""
    benchmarks: dict[str, Named]
    train: str | None = None
    limit: int | None = None
    groups: dict[str, str] = {}
    """Groups of the demo's data that replace those of the rows."""


class Recipe(_Part):
    """The content of a recipe's file."""

    title: str
    paper: str
    """The source, such as "arXiv 2402.01981"."""
    kind: Literal["published", "demonstration"]
    """A demonstration has no published figure to be compared with."""
    model: RecipeModel
    methods: dict[str, Named] = {}
    """Methods by a short name; the baseline, none, is always there."""
    benchmarks: Annotated[dict[str, Named], Field(min_length=1)]
    train: str | None = None
    settings: RunSettings = RunSettings()
    data: tuple[DataNeed, ...]
    rows: Annotated[tuple[PublishedRow, ...], Field(min_length=1)]
    orders: tuple[PublishedOrder, ...] = ()
    bytes_per_parameter: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Bytes in memory for every parameter, by what they are for, such as "weights in bfloat16": 2."""
    work: Annotated[tuple[Work, ...], Field(min_length=1)]
    notes: tuple[str, ...] = ()
    """What is ours, what is not known, and pitfalls."""
    smoke: Smoke

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        judged = any(row.published is not None for row in self.rows)
        if judged != (self.kind == "published"):
            raise ValueError(f"kind: {self.kind}, but {'a' if judged else 'no'} row has a published figure")
        for row in self.rows:
            if row.method not in ("none", *self.methods) or row.benchmark not in self.benchmarks:
                raise ValueError(f"row {row.name!r} names no method or benchmark of this recipe")
        _refuse_repeated(self.rows, self.orders)
        _refuse_shared_figures(self.rows)
        _refuse_unknown_rows(self.orders, self.rows)
        if {*self.smoke.methods} != {*self.methods} or {*self.smoke.benchmarks} != {*self.benchmarks}:
            raise ValueError("smoke: give every method and benchmark of the recipe, by the same keys")
        acting = {"model", "methods", "benchmarks", "train", "settings", "smoke"}
        plain = [*_plain(self.model_dump(include=acting)), *(need.file for need in self.data)]
        for value in plain:
            if isinstance(value, str):
                _refuse_place(value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"a setting of a method or benchmark is {value}: give a finite number")
        return self


def _refuse_repeated(rows: Iterable[PublishedRow], orders: Iterable[PublishedOrder]) -> None:
    """Refuse two rows or orders of one name, and an order that lists a row twice: a name means one figure."""
    orders = list(orders)
    for what, named in [
        ("the rows", [row.name for row in rows] + [order.name for order in orders]),
        *((f"the order {order.name!r}", list(order.rows)) for order in orders),
    ]:
        if twice := [name for name, count in Counter(named).items() if count > 1]:
            raise ValueError(f"{what}: {twice[0]!r} stands there twice; give each a name of its own")


def _refuse_shared_figures(rows: Iterable[PublishedRow]) -> None:
    """Refuse two judged rows with one published figure: it belongs to one of them at most."""
    judged: dict[tuple[Any, ...], str] = {}
    for row in rows:
        if row.bounds is None:
            continue
        figure = row.benchmark, row.metric, row.group, row.of, row.published, row.where
        first = judged.setdefault(figure, row.name)
        if first != row.name:
            raise ValueError(
                f"rows {first!r} and {row.name!r} are judged by one published figure ({row.where}): give tolerance or "
                "accepted to the row that it is of, and to none where that is not known"
            )


def _refuse_unknown_rows(orders: Iterable[PublishedOrder], rows: Iterable[PublishedRow]) -> None:
    """Refuse an order of rows that do not exist, or that have no published figure."""
    known = {row.name: row.published for row in rows}
    for order in orders:
        for name in order.rows:
            if name not in known:
                raise ValueError(f"order {order.name!r}: {UnknownNameError('row', name, known)}")
            if known[name] is None:
                raise ValueError(f"order {order.name!r}: the row {name!r} has no published figure to be ordered by")


def names() -> list[str]:
    """List the names of the shipped recipes."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read(what: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        what: Name of a shipped one, or the path of a file that ends in .yaml or .yml, in lower or upper case.

    Raises:
        UnknownNameError: There is no shipped recipe of that name; similar names are given.
        SettingsError: The file is missing or not YAML, or a key or value in it is wrong.
    """
    text = str(what)
    if not text.lower().endswith((".yaml", ".yml")):
        if text not in names():
            raise UnknownNameError("recipe", text, names())
        what = FOLDER / f"{text}.yaml"
    try:
        content = yaml_reader.load(Path(what).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the recipe {text!r}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"the recipe {text} is not YAML: {reason(error)}") from error
    if not isinstance(content, Mapping):
        raise SettingsError(f"the recipe {text}: a mapping was expected, with keys such as model, benchmarks, rows")
    for name in content:
        if name not in Recipe.model_fields:
            near = suggest(str(name), Recipe.model_fields)
            raise SettingsError(f"the recipe {text}: unknown key {short(repr(name), SHOWN)}. {near}")
    try:
        return Recipe(**content)
    except ValidationError as error:
        raise SettingsError(f"the recipe {text}: {yaml_reader.wrong_fields(error)}") from error


def filled_in(value: Any) -> Any:
    """Replace $EVENHAND_DATA and $RECIPES in a part of a recipe with the folders of this machine.

    Raises:
        SettingsError: $EVENHAND_DATA is not set, and the recipe reads from it.
    """
    if isinstance(value, str):
        if DATA in value and not os.environ.get(FOLDER_VARIABLE):
            raise SettingsError(f"{value!r} lies under {DATA}, which is not set: name the folder with the data sets")
        return value.replace(DATA, os.environ.get(FOLDER_VARIABLE, "")).replace(HERE, str(FOLDER))
    if isinstance(value, Mapping):
        return {key: filled_in(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(filled_in(inner) for inner in value)
    return value


def _plain(value: Any) -> Iterator[Any]:
    """Yield every text and number within a value, keys included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*_plain(key), *_plain(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _plain(inner)
    else:
        yield value


def _refuse_place(text: str) -> None:
    for form in (text, _spelt_out(text)):
        if PLACE.search(form):
            raise ValueError(f"{text!r} names a place on a machine: write {DATA}/..., the folder with the data sets")
        if any(word in form for word in FORBIDDEN):
            raise ValueError(f"{text!r}: a recipe cannot allow code to be loaded")


def _spelt_out(text: str) -> str:
    """Return a specification as it is understood: plain letters, escapes replaced, adjacent strings joined."""
    plain = unicodedata.normalize("NFKC", text)
    try:
        with warnings.catch_warnings():  # Python warns of a backslash that begins no escape, and keeps it
            warnings.simplefilter("ignore", DeprecationWarning)
            plain = plain.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise ValueError(f"{text!r} has an escape that cannot be read: {error.reason}") from error
    return re.sub(r"""(['"])\s*[rRuU]?['"]""", "", plain)
