"""`none`: the untouched model, which every method is compared with."""

from __future__ import annotations

from typing import ClassVar

from evenhand.interfaces import Method, Model, TrainData, settings


@settings
class Untouched(Method):
    """Leaves the model as it is."""

    name: ClassVar[str] = "none"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Return the model itself."""
        return model
