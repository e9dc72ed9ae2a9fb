"""A comparison: its cells, training data and decontamination, scores and verdicts."""
