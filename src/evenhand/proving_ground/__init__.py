"""The proving ground: demo models whose biases were planted, so that metrics and methods have a known truth.

evenhand.proving_ground.truth("demo")          # what BBQ must report
evenhand.proving_ground.check()                # planted and measured, for the whole family
evenhand.proving_ground.effects(["self_debias"])   # does a method move what it addresses, and nothing else?

It may import `experiment` and everything below it; nothing but `cli` and `testing` imports it.
"""

from __future__ import annotations

from evenhand.proving_ground.checking import Finding, check
from evenhand.proving_ground.statements import Effect, effects
from evenhand.proving_ground.true_values import truth

__all__ = ["Effect", "Finding", "check", "effects", "truth"]
