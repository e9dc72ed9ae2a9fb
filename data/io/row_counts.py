"""The number of rows of a published file, against what its description says."""

from __future__ import annotations

from evenhand.errors import DataError


def demand_rows(what: str, found: int, published: int, where: object, *, partial: bool, benchmark: str) -> list[str]:
    """Refuse a file with another number of rows than the published one, unless a part was asked for.

    Args:
        what: What is counted, such as "explicit rows".
        found: Usable rows of the file.
        published: Rows of the published file.
        where: The file.
        partial: Whether another number is accepted, with a note.
        benchmark: Its name, for the remedy.

    Returns:
        Notes for the report: none where the numbers agree.

    Raises:
        DataError: The numbers differ and `partial` is False.
    """
    if found == published:
        return []
    said = f"{where} has {found:,} {what}, the published data {published:,}"
    if not partial:
        raise DataError(
            f"{said}. Take the whole file again, or set {benchmark}(partial=True) to measure on what is there"
        )
    return [f"{said}: the numbers cannot be compared with published ones"]
