"""Reports: tables, an interval plot and a summary, all from the same records.

It may import everything below `experiment`: `compare` returns a `Report`, and a report does not start runs.
"""

from evenhand.report.report import Report

__all__ = ["Report"]
