"""Marks in the record of a conversation, next to the turns that were asked."""

from __future__ import annotations

UNSEEN = "; not shown to the model]"
"""Ends what is inserted in a record between the turns that were asked."""
ANEW = f"[the next turn was asked for in this dialogue{UNSEEN}"
"""Separates two dialogues in a record."""
