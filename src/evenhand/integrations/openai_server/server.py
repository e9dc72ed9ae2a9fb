"""The server process: its socket, uvicorn, and the lines that are printed at the start."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from shlex import quote

from evenhand.errors import SettingsError
from evenhand.integrations.openai_server.limits import Limits
from evenhand.interfaces import Model
from evenhand.models.mitigated import Mitigated


def serve(
    model: Model,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key_env: str | None = None,
    name: str | None = None,
    max_tokens: int = 256,
    limits: Limits | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Serve a model with the OpenAI protocol until interrupted.

    Args:
        model: The model that answers; it must be able to write.
        host: Address to listen at; only this machine by default.
        port: Port to listen at; 0 takes a free one.
        key_env: Environment variable with the key that clients must send; None lets everyone in.
        name: Name of the model that clients use; its own by default.
        max_tokens: Maximum number of new tokens of a chat reply whose request gives none.
        limits: How much a request, a connection and all together may take; None is the defaults of `Limits`.
        say: Called with each line on where the server is and how to ask it.

    Raises:
        SettingsError: The address cannot be used, the variable is not set, or the extra `serve` is not installed.
        MissingAbilityError: The model cannot write.
    """
    try:
        import uvicorn

        from evenhand.integrations.openai_server.app import build_app
        from evenhand.integrations.openai_server.connections import configured
    except ImportError as error:
        raise SettingsError(f"serving needs fastapi and uvicorn ({error}): pip install 'evenhand[serve]'") from error
    limits = limits or Limits()
    app = build_app(model, name=name, key=_key(key_env), max_tokens=max_tokens, limits=limits)
    listening = _listen(host, port)
    for line in _lines(model, name or model.name, listening, key_env):
        say(line)
    with listening, suppress(KeyboardInterrupt):
        uvicorn.Server(configured(app, limits)).run(sockets=[listening])


def _key(variable: str | None) -> str | None:
    """Read the key; neither it nor what was given as the variable's name is ever shown."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip() if re.fullmatch(r"[A-Za-z_]\w*", variable) else ""
    if not key:
        raise SettingsError("key_env takes the name of an environment variable with the key; this one is not set")
    return key


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"cannot listen at {host} port {port}: {error}; choose another --host or --port") from error


def _lines(model: Model, name: str, listening: socket.socket, key_env: str | None) -> list[str]:
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    body = json.dumps({"model": name, "max_tokens": 40, "messages": [{"role": "user", "content": "Hello"}]})
    key = f' -H "Authorization: Bearer ${key_env}"' if key_env else ""
    lines = [f"serving {name} at {url} (Ctrl-C ends it)"]
    if isinstance(model, Mitigated) and "generate" not in model.acts_on:
        lines.append(
            f"note: {model.method.spec} changes no written replies; over this protocol it answers as the baseline does"
        )
    if not key_env and not ipaddress.ip_address(host).is_loopback:
        lines.append("note: anybody who reaches this address can use it; set a key with --key-env")
    return [*lines, f"curl {url}/chat/completions -H 'Content-Type: application/json'{key} -d {quote(body)}"]
