"""Version numbers that are part of the keys of stored results.

A key covers everything that decides a result. Code is part of that, but hashing it would mean asking everything again
after every edit, so it has a number that is raised by hand.
"""

from __future__ import annotations

ANSWERS = 3
"""Version of how questions become prompts, and replies become answers. Raise it whenever either changes for any input:
run folders then ask their older answers again. `tests/core/test_versions.py` compares golden prompts and parses with
those of the present code, and fails where they differ. Run folders that name no version have version 1."""
