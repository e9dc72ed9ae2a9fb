"""Students of a debiased teacher: what they read, the networks that they are, and how they learn.

`evenhand.models.student` makes `Model`s of them.
"""
