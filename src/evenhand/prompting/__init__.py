"""Questions and dialogues to text, and replies back to answers.

It may import `core`, `interfaces` and `errors`.
"""
