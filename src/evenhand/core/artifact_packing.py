"""Finished artefacts (`evenhand.core.artifacts`) as bytes, for transfer to another machine."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from evenhand.core import file_io
from evenhand.errors import RunError


def pack(root: Path, key: str) -> bytes:
    """Pack a finished artefact and its checksums into one uncompressed tar file.

    Args:
        root: The folder of artefacts.
        key: Key of the artefact.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in (key, f".{key}.sha256"):
            if (root / name).exists():
                tar.add(root / name, arcname=name)
    return packed.getvalue()


def unpack(packed: bytes, root: Path, key: str) -> None:
    """Unpack an artefact into the folder of artefacts; one that is there already stays.

    Its checksums are verified when it is opened, as for any artefact.

    Args:
        packed: What `pack` returned.
        root: The folder of artefacts.
        key: Key of the artefact.

    Raises:
        RunError: `packed` does not contain this artefact, or it cannot be written.
    """
    if (root / key).is_dir():
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=root, prefix=".") as folder,
            tarfile.open(fileobj=io.BytesIO(packed)) as tar,
        ):
            tar.extractall(folder, filter="data")
            sums = Path(folder) / f".{key}.sha256"
            if sums.is_file():
                sums.rename(root / sums.name)
            file_io.sync_tree(Path(folder) / key)
            (Path(folder) / key).rename(root / key)
    except (OSError, tarfile.TarError) as error:
        raise RunError(f"cannot store an artefact from elsewhere in {root}: {error}; free some space") from error
