"""Methods that average out the order of the options, or train a student to answer as that average does.

It may import its own private files, `training` and the packages below it, and no other family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from evenhand.methods.permutation.permutation import Permutation as Permutation
else:
    # evenhand.methods.permutation was the method's module before it was the family's package
    __getattr__, __dir__ = lazy_names(__name__, {"evenhand.methods.permutation.permutation": ["Permutation"]})
