"""The command line, one module per group of commands; nothing imports it."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from evenhand.cli.app import main as run

    run()
