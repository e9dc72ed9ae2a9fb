"""Foundations of evenhand, without torch: the registry, specs, records, the run folder, the answer cache, artifacts.

It may import `interfaces` and `errors`.
"""
