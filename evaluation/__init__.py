"""Benchmarks, one file each. A benchmark turns a `Model` into scores; see `evenhand.interfaces`."""
