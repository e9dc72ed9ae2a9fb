"""Methods that correct the probabilities of option letters: priors, contextual calibration and their kin.

It may import its own private files, `training` and the packages below it, and no other family.
"""
