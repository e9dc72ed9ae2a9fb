"""Questions and dialogues to text, and replies back to answers."""
