"""The parts of `pairwise`: losses of pairs, how their log-probabilities are computed, and when training stops."""
