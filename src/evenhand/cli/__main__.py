"""Entry point of `python -m evenhand.cli`."""

from evenhand.cli import main

main()
