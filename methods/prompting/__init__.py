"""Methods that change what a model is asked or how it decodes; no weights are touched.

It may import its own private files, `training` and the packages below it, and no other family.
"""
