"""A comparison from plan to scores: its cells, training data, decontamination and sweeps.

It may import `report` and everything below it.
"""
