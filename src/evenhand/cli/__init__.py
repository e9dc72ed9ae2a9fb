"""The command line; `evenhand.cli.app` holds its commands."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from evenhand.cli.app import main as run

    run()
