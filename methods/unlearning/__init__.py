"""Methods that edit a model's weights to take a bias out of them: task vectors, PCGU, preferences.

It may import its own private files, `training` and the packages below it, and no other family.
"""
