"""Version numbers that are part of the keys under which results are kept.

A key names everything that decides a result. Code is part of that and cannot be hashed without asking everything anew
after every edit, so it has a number that is raised by hand.
"""

from __future__ import annotations

ANSWERS = 3
"""How questions become prompts, and replies become answers. Raise it whenever either changes for any input: run folders
then ask anew what they hold from before. `tests/core/test_versions.py` compares golden prompts and parses with what the
code makes of them today, and fails where they differ. Version 1 is that of run folders that name none."""
