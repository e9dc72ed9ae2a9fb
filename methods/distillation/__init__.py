"""Methods that train a student on a teacher's predictions of plain texts, under fairness rules.

It may import its own private files and `rules`, `training` and the packages below it, and no other family.
"""
