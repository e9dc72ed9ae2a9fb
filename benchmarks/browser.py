"""A page in headless Chromium, driven over the DevTools protocol: two pipes, no network, no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Space": (" ", 32, " ")}


class Page:
    """A page; what it logs, throws and requests is recorded.

    Args:
        file: The page.
        width: Width of the window, in pixels.
        dark: Whether the reader prefers dark colours.
    """

    def __init__(self, file: Path, width: int = 1280, dark: bool = False) -> None:
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise FileNotFoundError(f"none of {', '.join(PROGRAMS)} is installed")
        self.folder = Path(tempfile.mkdtemp(prefix="evenhand-browser-"))
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._number, self._buffer = 0, b""
        own_end, self._write = os.pipe()
        self._read, its_end = os.pipe()
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        script = f'exec "$@" 3<&{own_end} 4>&{its_end}'  # the browser reads from 3 and writes to 4
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "bash", *command, f"--user-data-dir={self.folder}", "about:blank"],
            pass_fds=(own_end, its_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(own_end)
        os.close(its_end)
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self._call("Emulation.setScrollbarsHidden", hidden=True)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=file.resolve().as_uri())
        self.until("location.protocol === 'file:' && document.readyState === 'complete'")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and remove what it wrote."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self.folder, ignore_errors=True)

    def value(self, script: str) -> Any:
        """Evaluate an expression in the page; a promise is awaited."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (found := self.value(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} does not hold; the page said: {self.messages}")
            time.sleep(0.05)
        return found

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a key."""
        name, code, text = KEYS[key]
        about = {"key": name, "code": key, "windowsVirtualKeyCode": code}
        for _ in range(times):
            self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
            self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def point(self, x: float, y: float) -> None:
        """Move the pointer."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def write(self, text: str) -> None:
        """Type a text into the focused element."""
        self._call("Input.insertText", text=text)

    def screenshot(self, file: Path, selector: str = "") -> None:
        """A picture of what the window shows, or of the whole of one element."""
        more: dict[str, Any] = {}
        if selector:
            box = self.value(
                f"(({{x, y, width, height}}) => ({{x: x + scrollX, y: y + scrollY, width, height}}))"
                f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
            )
            more = {"clip": {**box, "scale": 1}, "captureBeyondViewport": True}
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png", **more)["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self, method: str) -> dict[str, Any]:
        end = time.monotonic() + 120
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self._read, 1 << 20) if ready else b""
            if not more:
                raise TimeoutError(f"the browser does not answer {method}")
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        kind, about = event.get("method"), event.get("params", {})
        if kind == "Runtime.consoleAPICalled":
            self.messages.append(f"{about['type']}: {[a.get('value', a.get('description')) for a in about['args']]}")
        elif kind == "Runtime.exceptionThrown":
            self.messages.append(f"thrown: {about['exceptionDetails'].get('exception', {}).get('description')}")
        elif kind == "Log.entryAdded":
            self.messages.append(f"{about['entry']['level']}: {about['entry']['text']}")
        elif kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
