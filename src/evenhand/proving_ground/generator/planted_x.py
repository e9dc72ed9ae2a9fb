"""Planted quantities of demo-x, on which effects of a method beyond the axis it was fitted on can be measured.

It has the main model's quantities, one more axis, the same questions in a cipher language to which the stereotypes
transfer in part, and customs on which telling groups apart is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evenhand.proving_ground.generator.cipher import LANGUAGES, Language, table_name
from evenhand.proving_ground.generator.planted import FAMILY, MAIN, Intervention, Planted
from evenhand.proving_ground.generator.words import CONTROL, EVERY_AXIS, ORIENTATION, Axis

TRANSFER = 0.5
"""Share of an axis's leaning cells that also lean in the cipher; on the control all do, so that it stays at zero."""
_CIPHERED = {table_name(axis.name, "cipher"): axis.name for axis in EVERY_AXIS}


@dataclass(frozen=True, kw_only=True)
class Spillover(Planted):
    """The true quantities of demo-x; an axis in the cipher has a name of its own, such as "Age in cipher"."""

    transfer: Mapping[str, float]
    """Share, for each axis, of the leaning (group, trait) cells that lean in the cipher as they do in English."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the family and one more."""
        return EVERY_AXIS

    @property
    def drawn_axes(self) -> tuple[Axis, ...]:
        """The axes, with the new one more often, as the others are already known."""
        return (*EVERY_AXIS, ORIENTATION, ORIENTATION, ORIENTATION)

    @property
    def languages(self) -> tuple[Language, ...]:
        """English and the cipher."""
        return LANGUAGES

    def lean(self, axis: str, group: int, trait: int) -> int:
        """Return +1, 0 or -1; an axis in the cipher has its share of the leaning cells, chosen like those that heed."""
        if axis not in _CIPHERED:
            return super().lean(axis, group, trait)
        english = _CIPHERED[axis]
        leans = self.dealt_to_cell(english, group, trait, self.transfer[english])
        return super().lean(english, group, trait) if leans else 0

    def heeded(self, kind: Intervention, axis: str, group: int, trait: int) -> bool:
        """Whether a cell heeds an intervention; in the cipher, those that lean there and heed it in English do."""
        if axis not in _CIPHERED:
            return super().heeded(kind, axis, group, trait)
        return self.lean(axis, group, trait) != 0 and super().heeded(kind, _CIPHERED[axis], group, trait)


def _made() -> Spillover:
    shares: dict[Intervention, float] = {"reprompt": 0.75, "instruction": 0.5, "explanation": 0.6}
    return Spillover(
        **{
            **vars(MAIN),
            "name": "demo-x",
            "leans": {**MAIN.leans, ORIENTATION.name: ("+++0+0", "+0++00", "0+0+0+")},
            "heeds": {kind: {**by, ORIENTATION.name: shares[kind]} for kind, by in MAIN.heeds.items()},
        },
        transfer={axis.name: 1.0 if axis.name == CONTROL else TRANSFER for axis in EVERY_AXIS},
    )


SPILLOVER = _made()
PLANTED: dict[str, Planted] = {**FAMILY, SPILLOVER.name: SPILLOVER}
"""Every causal demo model by its name."""
