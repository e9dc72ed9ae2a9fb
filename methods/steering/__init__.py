"""Methods that change hidden states while a model answers, and leave its weights as they are.

It may import its own private files, `training` and the packages below it, and no other family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from evenhand.methods.steering._exporting import export as export
else:
    __getattr__, __dir__ = lazy_names(__name__, {"evenhand.methods.steering._exporting": ["export"]})

__all__ = ["export"]
