"""Check that one hostile client of `evenhand serve` does not affect the others.

python benchmarks/torture_serve.py [--model demo] [--megabytes 40] [--others 20]

Starts the server as a process of its own, has others chat with it, and sends a body of 40 MB meanwhile, with its length
announced and in chunks. Ends with status 1 unless each is refused with 413 within a second, the memory of the server
grows by less than 100 MB, and every other chat is answered.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil
from tables import markdown

MOST_SECONDS = 1.0
MOST_MEGABYTES = 100.0
PATH = "/v1/chat/completions"
CHUNK = 65536
WAIT = 600.0
"""Maximum wait for any client, in seconds."""


class Server(NamedTuple):
    """A served model."""

    process: psutil.Process
    port: int
    name: str

    def chat(self, content: str, limit: int) -> int:
        """Return the status of one chat."""
        messages = [{"role": "user", "content": content}]
        body = json.dumps({"model": self.name, "messages": messages, "temperature": 0, "max_tokens": limit})
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        line.request("POST", PATH, body, {"Content-Type": "application/json"})
        status = line.getresponse().status
        line.close()
        return status

    def flood(self, size: int, *, chunked: bool) -> tuple[int, float]:
        """Return the status for a body of that many bytes, and the seconds until its refusal."""
        pieces = (b"x" * min(CHUNK, size - at) for at in range(0, size, CHUNK))
        named = {"Content-Type": "application/json", **({} if chunked else {"Content-Length": str(size)})}
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        begun = time.perf_counter()
        line.request("POST", PATH, pieces, named, encode_chunked=chunked)
        status = line.getresponse().status
        seconds = time.perf_counter() - begun
        line.close()
        return status, seconds


@contextmanager
def served(model: str) -> Iterator[Server]:
    """Run a server during the block."""
    code = "from evenhand.cli.app import main; main()"
    command = [sys.executable, "-u", "-c", code, "serve", model, "--port", "0", "--name", "m"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        yield Server(psutil.Process(process.pid), urlsplit(url).port or 0, "m")
    finally:
        process.terminate()
        process.wait(WAIT)


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[float]]:
    """Measure the largest growth of a process's memory within the block, in MB, as the only entry afterwards."""
    before, grown, stop = process.memory_info().rss, [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            grown[0] = max(grown[0], (process.memory_info().rss - before) / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield grown
    finally:
        stop.set()
        watcher.join()


def attacked(server: Server, size: int, others: int, *, chunked: bool) -> dict[str, object]:
    """Return one row: a flood while others chat."""
    with ThreadPoolExecutor(others) as pool, watched(server.process) as grown:
        talking = [pool.submit(server.chat, f"Who was number {i}?", 40) for i in range(others)]
        status, seconds = server.flood(size, chunked=chunked)
        answered = sum(chat.result() == 200 for chat in talking)
    good = status == 413 and seconds < MOST_SECONDS and grown[0] < MOST_MEGABYTES and answered == others
    return {
        "sent": "chunks" if chunked else "length announced",
        "status": status,
        "refused after, s": f"{seconds:.2f}",
        "memory grew by, MB": f"{grown[0]:.0f}",
        "others answered": f"{answered} of {others}",
        "good": "yes" if good else "NO",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="model to serve")
    parser.add_argument("--megabytes", type=int, default=40, help="size of the body")
    parser.add_argument("--others", type=int, default=20, help="number of chats at the same time")
    given = parser.parse_args()
    with served(given.model) as server:
        with ThreadPoolExecutor(given.others) as pool:  # the first batch imports, allocates and runs the support probe
            list(pool.map(lambda i: server.chat(f"Who was number {i}?", 40), range(given.others)))
        size = given.megabytes * 10**6
        rows = [attacked(server, size, given.others, chunked=chunked) for chunked in (False, True)]
    print(markdown(rows))
    sys.exit(any(row["good"] == "NO" for row in rows))


if __name__ == "__main__":
    main()
