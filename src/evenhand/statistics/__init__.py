"""Intervals and tests on tallies: uncertainty from clusters of items that are not independent of one another.

`Design` says which clusters form a group and how they are stratified; `Estimate` is a metric of every group with its
interval; `Paired` the difference of two estimates on the same items. Smooth metrics use the stratified
delete-one-cluster jackknife with Student's t, proportions exact binomial bounds in addition, all others a bootstrap.

It may import `prompting`, `core` and below, and no data set: it sees tallies, not items.
"""

from evenhand.statistics.design import Design
from evenhand.statistics.estimate import Estimate, Sampled, estimates
from evenhand.statistics.families import holm
from evenhand.statistics.means import mean_interval
from evenhand.statistics.paired import Flips, Paired, gain, paired
from evenhand.statistics.resampling import MIN_REPLICATES, REPLICATES

__all__ = [
    "MIN_REPLICATES",
    "REPLICATES",
    "Design",
    "Estimate",
    "Flips",
    "Paired",
    "Sampled",
    "estimates",
    "gain",
    "holm",
    "mean_interval",
    "paired",
]
