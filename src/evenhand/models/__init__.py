"""The one model-loading layer: `load` makes a `Model` of nearly anything, `wrap` of what is already in memory.

It may import `inference` and the packages below it, and no method.
"""

from evenhand.models.loading import load, wrap
from evenhand.models.mitigated import Mitigated

__all__ = ["Mitigated", "load", "wrap"]
