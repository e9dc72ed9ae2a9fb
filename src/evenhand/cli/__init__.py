"""The command line, one module per group of commands; no other package imports it."""

from __future__ import annotations

from evenhand.cli import signals


def main() -> None:
    """Run the command line; signals are handled even while its modules are being imported."""
    with signals.heard():
        try:
            from evenhand.cli.app import main as run

            run()
        except KeyboardInterrupt:
            signals.stop()
