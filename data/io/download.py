"""Fetching a data set into $EVENHAND_DATA: from its repository at a fixed commit, or from the hub."""

from __future__ import annotations

import os
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from evenhand.core import file_io
from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate
from evenhand.data.io.checksums import RAW, official
from evenhand.errors import DataError, SettingsError

TIMEOUT = 60.0
"""Seconds that a server may stay silent."""


def fetch(dataset: locate.Dataset, folder: str | Path | None = None, host: str = RAW) -> Path:
    """Fetch what is missing of a data set; files that are there are left alone.

    Every fetched file is compared with its published SHA-256 before it gets its name, so that a broken or changed
    download is never taken for the data. Where git fetches, it compares every file with the commit's hash.

    Args:
        dataset: Which one.
        folder: The folder above the data sets; None for $EVENHAND_DATA.
        host: Where raw files of repositories are served.

    Returns:
        The data set's folder.

    Raises:
        SettingsError: No folder is named anywhere.
        DataError: It cannot be fetched; the message says how else to get it.
    """
    target = locate.folder_of(dataset, folder)
    if target is None:
        raise SettingsError(f"say where to: --to FOLDER, or set {locate.FOLDER_VARIABLE}")
    urls = official(dataset.name).urls
    if urls:
        for path, url in urls.items():
            if not any((target / p).exists() for p in (path, f"{path}.gz")):
                _fetch_file(dataset, host + url, target / path, official(dataset.name).files[path])
        return target
    if dataset.clone is not None:
        return _clone(dataset, dataset.clone, target)
    if not dataset.hub:
        raise DataError(f"{dataset.name} cannot be fetched by itself. {locate.how_to_get(dataset)}")
    return locate.from_hub(dataset, dataset.hub, target)


def _fetch_file(dataset: locate.Dataset, url: str, path: Path, digest: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as reply:
            content = reply.read()
    except (OSError, urllib.error.URLError) as error:
        raise DataError(f"cannot fetch {url}: {error}. {locate.how_to_get(dataset)}") from error
    found = bytes_hash(content)
    if found != digest:
        raise DataError(f"{url} is not the published file: its SHA-256 is {found}, not {digest}; it was not kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    file_io.write_bytes(path, content)


def _clone(dataset: locate.Dataset, clone: locate.Clone, target: Path) -> Path:
    """One folder of a repository at its commit; nothing is fetched where the folder is there."""
    wanted = target / clone.folder
    if wanted.exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target) as temporary:
        for arguments in (
            ("init", "--quiet"),
            ("fetch", "--quiet", "--depth", "1", "--", clone.url, clone.commit),
            ("-c", "core.autocrlf=false", "checkout", "--quiet", "FETCH_HEAD", "--", clone.folder),
        ):
            _git(dataset, clone, Path(temporary), arguments)
        if (head := _git(dataset, clone, Path(temporary), ("rev-parse", "FETCH_HEAD"))) != clone.commit:
            raise DataError(f"{clone.url} gave the commit {head}, not {clone.commit}; it was not kept")
        (Path(temporary) / clone.folder).rename(wanted)
    return target


def _git(dataset: locate.Dataset, clone: locate.Clone, folder: Path, arguments: Sequence[str]) -> str:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-c", "core.hooksPath=" + os.devnull, *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **quiet}, capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise DataError(
            f"{dataset.name} is fetched by git, which is not installed. {locate.how_to_get(dataset)}"
        ) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"git ended with {error.returncode}"])[-1]
        raise DataError(f"cannot fetch {clone.commit} of {clone.url}: {said}. {locate.how_to_get(dataset)}") from error
    return done.stdout.strip()
