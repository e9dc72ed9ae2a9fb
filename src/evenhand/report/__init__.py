"""Reports: tables, an interval plot and a summary, all from the same records."""

from evenhand.report.report import Report

__all__ = ["Report"]
