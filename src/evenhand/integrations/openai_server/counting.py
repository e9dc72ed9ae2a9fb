"""Refusal of bodies with too many parts, before each part is checked, which would take long."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from evenhand.integrations.openai_server.limits import Limits
from evenhand.integrations.openai_server.refusal import RefusedError

LISTS = ("messages", "prompt", "stop")
"""Fields whose entries are counted; the token ids of a single prompt are checked against the context."""


def counted_route(limits: Limits) -> type[APIRoute]:
    """Return a class of routes whose bodies have a limited number of parts.

    Args:
        limits: How many messages, prompts and parts there may be.
    """

    class Counted(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            inner = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    body = await request.json() if request.method == "POST" else None
                except (ValueError, RecursionError):  # the route itself reports what is wrong
                    body = None
                if isinstance(body, dict):
                    check_counts(body, limits.max_messages)
                return await inner(request)

            return handler

    return Counted


def check_counts(body: dict[str, Any], most: int) -> None:
    """Refuse lists that are too long.

    Args:
        body: The body as it was sent.
        most: Maximum number of entries of a list.

    Raises:
        RefusedError: A list is too long; the message gives the field and both numbers.
    """
    for name in LISTS:
        listed = body.get(name)
        if not isinstance(listed, list) or (name == "prompt" and listed and isinstance(listed[0], int)):
            continue
        parts = (entry.get("content") for entry in listed[: most + 1] if isinstance(entry, dict))
        for count in (len(listed), *(len(part) for part in parts if isinstance(part, list))):
            if count > most:
                message = f"{name}: {count} entries are more than the {most} that this server takes; send fewer"
                raise RefusedError(400, message, param=name)
