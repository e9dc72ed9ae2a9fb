"""Mitigation methods, one file each. A method turns a `Model` into a `Model`; see `evenhand.interfaces`."""
