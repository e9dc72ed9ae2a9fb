"""The parts of `pairwise`: losses on pairs, how their log-probabilities are computed, and when training stops."""
