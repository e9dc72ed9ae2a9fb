"""Record what each stage of an adjudication cost: seconds, memory, requests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenhand.core import file_io
from evenhand.methods.adjudication._asking import Journal


class Costs:
    """A list of stages on disk, to which a resumed run adds."""

    def __init__(self, path: Path, journal: Journal) -> None:
        """Continue with the stages recorded so far."""
        self._path, self._journal = path, journal
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []

    @contextmanager
    def stage(self, name: str, turn: int) -> Iterator[None]:
        """Measure the enclosed block: the process's memory at its end, and the GPU's peak memory."""
        import psutil  # type: ignore[import-untyped]
        import torch

        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        before, start = self._journal.asked.total(), time.monotonic()
        yield
        row = {
            "round": turn,
            "stage": name,
            "seconds": round(time.monotonic() - start, 3),
            "requests": self._journal.asked.total() - before,
            "memory_bytes": int(psutil.Process().memory_info().rss),
            "gpu_peak_bytes": int(torch.cuda.max_memory_allocated()) if cuda else 0,
        }
        self.rows.append(row)
        file_io.write_text(self._path, json.dumps(self.rows, indent=1))  # so that a resumed run can read it

    def summed(self) -> list[dict[str, Any]]:
        """Return one row per round and stage, adding up those of killed runs."""
        out: dict[tuple[int, str], dict[str, Any]] = {}
        for row in self.rows:
            at = out.setdefault((row["round"], row["stage"]), {**row, "seconds": 0.0, "requests": 0})
            at["seconds"] = round(at["seconds"] + row["seconds"], 3)
            at["requests"] += row["requests"]
            for name in ("memory_bytes", "gpu_peak_bytes"):
                at[name] = max(at[name], row[name])
        return list(out.values())
