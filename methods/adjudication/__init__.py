"""Methods in which several models judge one another's answers: cross-model adjudication and its stages.

It may import its own private files, `training` and the packages below it, and no other family.
"""
