"""What everything stands on, without torch: the registry, specs, records, the run folder, the answer cache, artifacts.

It may import `interfaces` and `errors`.
"""
