"""Unlearning: edits of a model's weights that take a bias out, as deltas that can be put on, added up and taken off."""
