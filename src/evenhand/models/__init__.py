"""The one model-loading layer: `load` makes a `Model` from almost anything, `wrap` from an object already in memory.

It may import `inference` and the packages below it, but no method.
"""

from evenhand.models.loading import load, wrap
from evenhand.models.mitigated import Mitigated

__all__ = ["Mitigated", "load", "wrap"]
