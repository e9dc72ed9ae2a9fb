"""Distillation on plain texts: a student learns what a teacher says of the next or the hidden word, under a rule."""
