"""`Repeated`: one method under several seeds and wordings. These are repetitions of one another, not rival methods.

They are asked for inside a specification, `task_vector(seeds=3)` or `instruction(wordings=('low_1', 'medium_1'))`, or
for all methods of a comparison at once. In a stack, all seeds advance together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, NoReturn

from evenhand.errors import SettingsError
from evenhand.interfaces import Method, Model, Reading, Stack, TrainData

SEEDS, WORDINGS = "seeds", "wordings"
Key = tuple[int, int]
"""Number of the seed, number of the wording."""


@dataclass(frozen=True)
class Repeated(Method):
    """A method, or a stack, once for each seed and wording."""

    name: ClassVar[str] = "repeated"

    method: Method
    seeds: int = 1
    """Number of seeds: each part's own one and those that follow it."""
    wordings: tuple[tuple[str, ...], ...] = ()
    """Values of the setting for the wording, per part of the stack; () if a part keeps its own."""

    def __post_init__(self) -> None:
        """Build all variants, so that a value that cannot be used is refused now."""
        _ = self.variants

    @property
    def spec(self) -> str:
        """The parts' specifications, with seeds and wordings in them."""
        return "+".join(
            _with(part.spec, self._repeats(part, wordings))
            for part, wordings in zip(parts_of(self.method), self._wordings, strict=True)
        )

    @cached_property
    def variants(self) -> dict[Key, Method]:
        """Every repetition, by number of its seed and of its wording."""
        count = max(1, *(len(w) for w in self._wordings))
        return {(s, w): self._variant(s, w) for s in range(self.seeds) for w in range(count)}

    def wording(self, key: Key) -> str:
        """Return the values of a variant's wording settings; "" if wordings are not repeated."""
        return ", ".join(dict.fromkeys(w[key[1]] for w in self._wordings if w))

    def own_texts(self) -> list[str]:
        """Return the texts of all variants."""
        return list(dict.fromkeys(text for variant in self.variants.values() for text in variant.own_texts()))

    def comparison_rows(self) -> dict[str, Method]:
        """Return the rows of the method, each repeated; a row whose seed decides nothing is not repeated by it."""
        rows = self.method.comparison_rows()
        if len(rows) == 1:
            return {"": self}
        return {name: _made(row, self.seeds if row.seeded else 1, self.wordings) for name, row in rows.items()}

    def reading(self, model: Model) -> Reading | None:
        """Return the reading of the first variant; others differ in the seed at most."""
        return self.variants[0, 0].reading(model)

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return the reason of the first variant."""
        return self.variants[0, 0].unsupported_reason(model, data)

    def apply(self, model: Model | None = None, data: TrainData | None = None) -> NoReturn:
        """Refuse, since the result would be several models.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(
            f"{self.spec} is {len(self.variants)} models, which can be compared but not applied, saved or served as "
            f"one: take one of them, such as {self.variants[0, 0].spec}"
        )

    @property
    def _wordings(self) -> tuple[tuple[str, ...], ...]:
        return self.wordings or ((),) * len(parts_of(self.method))

    def _variant(self, seed: int, wording: int) -> Method:
        made = [
            _changed(
                part,
                {
                    **({"seed": (part.settings["seed"] or 0) + seed} if part.seeded and seed else {}),
                    **({part.wording_setting: wordings[wording]} if wordings else {}),
                },
            )
            for part, wordings in zip(parts_of(self.method), self._wordings, strict=True)
        ]
        return made[0] if len(made) == 1 else Stack(tuple(made))

    def _repeats(self, part: Method, wordings: tuple[str, ...]) -> list[str]:
        seeds = [f"{SEEDS}={self.seeds}"] if self.seeds > 1 and part.seeded else []
        return seeds + ([f"{WORDINGS}={wordings!r}"] if wordings else [])


def parts_of(method: Method) -> tuple[Method, ...]:
    """Return the parts of a stack; any other method is its only part."""
    return method.parts if isinstance(method, Stack) else (method,)


def single(method: Method) -> Method:
    """Return the method, if it makes one model.

    Raises:
        SettingsError: The method is repeated.
    """
    if isinstance(method, Repeated):
        method.apply()
    return method


def variants_of(method: Method) -> dict[Key, Method]:
    """Return every repetition of a method; the method itself if it has none."""
    return method.variants if isinstance(method, Repeated) else {(0, 0): method}


def repeated(method: Method, seeds: int = 1, wordings: Sequence[str] = ()) -> Method:
    """Repeat a method as a comparison asks, unless the method asks for its own repetitions.

    A method without a seed, or one whose seed decides nothing, is not repeated by seed; one without a setting for its
    wording, or that knows none of the wordings, keeps its own.

    Raises:
        SettingsError: Some of the wordings are known to the method, and one is not.
    """
    base, own_seeds, own_wordings = method, 1, ()  # type: tuple[Method, int, tuple[tuple[str, ...], ...]]
    if isinstance(method, Repeated):
        base, own_seeds, own_wordings = method.method, method.seeds, method.wordings
    if own_seeds == 1 and base.seeded:
        own_seeds = seeds
    if not any(own_wordings) and wordings:
        own_wordings = tuple(tuple(wordings) if _knows_any(p, wordings) else () for p in parts_of(base))
    try:
        return _made(base, own_seeds, own_wordings)
    except SettingsError as error:
        raise SettingsError(
            f"{error} Give wordings for one method alone in its own settings, such as "
            "instruction(wordings=('low_1', 'medium_1'))"
        ) from error


def _knows_any(part: Method, wordings: Sequence[str]) -> bool:
    """Whether a method has a setting for its wording that takes one of these."""
    for wording in wordings if part.wording_setting else ():
        with suppress(SettingsError):
            _changed(part, {part.wording_setting: wording})
            return True
    return False


def take_out(cls: type[Method], given: Mapping[str, Any]) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Take `seeds` and `wordings` out of a method's settings; a method that has such a field keeps it.

    Raises:
        SettingsError: The number or wordings cannot be used, or the method has no seed or wording.
    """
    rest = dict(given)
    own = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    seeds = 1 if SEEDS in own or SEEDS not in rest else checked_seeds(rest.pop(SEEDS), f"{cls.name}: ")
    wordings = () if WORDINGS in own or WORDINGS not in rest else checked_wordings(rest.pop(WORDINGS), f"{cls.name}: ")
    if seeds > 1 and "seed" not in own:
        raise SettingsError(f"{cls.name}: seeds={seeds}, but it has no seed: nothing in it is left to chance")
    if wordings and not cls.wording_setting:
        raise SettingsError(f"{cls.name}: wordings={wordings!r}, but it has no setting that decides a wording")
    if wordings and cls.wording_setting in rest:
        value = rest[cls.wording_setting]
        raise SettingsError(f"{cls.name}: wordings= are values of {cls.wording_setting}={value!r}: give one of the two")
    return rest, seeds, wordings


def put_together(built: Sequence[Method], seeds: Sequence[int], wordings: Sequence[tuple[str, ...]]) -> Method:
    """Build a method or stack from its parts and what `take_out` found in each.

    Raises:
        SettingsError: Parts ask for different numbers, or have seeds that decide nothing.
    """
    base = built[0] if len(built) == 1 else Stack(tuple(built))
    wanted = {n for n in seeds if n > 1}
    if len(wanted) > 1:
        raise SettingsError(f"{base.spec}: seeds={min(wanted)} and seeds={max(wanted)}; all parts advance together")
    for part, n in zip(built, seeds, strict=True):
        if n > 1 and not part.seeded:
            raise SettingsError(
                f"{part.spec}: seeds={n}, but with these settings its seed decides nothing (such as sampling at "
                "temperature 0): change them, or leave seeds= out"
            )
    counts = {len(w) for w in wordings if w}
    if len(counts) > 1:
        raise SettingsError(f"{base.spec}: {min(counts)} and {max(counts)} wordings; parts change theirs together")
    return _made(base, max([1, *wanted]), tuple(wordings) if counts else ())


def checked_seeds(value: Any, place: str = "") -> int:
    """Check a number of seeds.

    Raises:
        SettingsError: The value is not a whole number of at least 1.
    """
    return checked_count(value, "seeds", "3 repeats a method with its seed and the two after it", place)


def checked_count(value: Any, name: str, example: str, place: str = "") -> int:
    """Check a number of repetitions.

    Raises:
        SettingsError: The value is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(f"{place}{name}={value!r} must be a whole number of at least 1; {example}")
    return value


def checked_wordings(value: Any, place: str = "") -> tuple[str, ...]:
    """Read wordings from a list, or from a text with commas.

    Raises:
        SettingsError: They are not texts, or one is there twice.
    """
    given: Iterable[Any] = (
        [w.strip() for w in value.split(",") if w.strip()]
        if isinstance(value, str)
        else value
        if isinstance(value, list | tuple)
        else [None]
    )
    found = tuple(given)
    if not found or not all(isinstance(w, str) and w for w in found):
        raise SettingsError(f"{place}wordings={value!r}: give values of the wording, such as ('low_1', 'medium_1')")
    if len(set(found)) < len(found):
        raise SettingsError(f"{place}wordings={value!r}: one is there twice; each has to be another wording")
    return found


def _made(base: Method, seeds: int, wordings: tuple[tuple[str, ...], ...]) -> Method:
    if not any(wordings):
        return Repeated(base, seeds) if seeds > 1 else base
    found = Repeated(base, seeds, wordings)
    return next(iter(found.variants.values())) if len(found.variants) == 1 else found


def _changed(part: Method, values: dict[str, Any]) -> Method:
    if not values:
        return part
    try:
        return replace(part, **values)  # type: ignore[type-var]
    except (SettingsError, ValueError) as error:
        what = ", ".join(f"{k}={v!r}" for k, v in values.items())
        raise SettingsError(f"{part.name}({what}): {error}") from error


def _with(spec: str, extra: Sequence[str]) -> str:
    if not extra:
        return spec
    return f"{spec.removesuffix(')')}{',' if spec.endswith(')') else '('}{','.join(extra)})"
