"""Refusals of requests: the status, and the reason in the protocol's form."""

from __future__ import annotations

import math
from typing import Any

from fastapi.responses import JSONResponse

from evenhand.integrations.openai_server.protocol import error

_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class RefusedError(Exception):
    """A reply with an error status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        close: bool = False,
    ) -> None:
        """Give status and reason.

        Args:
            status: The HTTP status.
            message: What is wrong and what to do.
            code: The protocol's name of the reason, if it has one.
            param: Name of the field that is wrong.
            retry_after: Seconds after which it is worth asking again.
            close: Whether the connection ends with this reply.
        """
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after, self.close = status, code, param, retry_after, close

    def body(self) -> dict[str, Any]:
        """Return the body in the protocol's form."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return error(str(self), kind, code=self.code, param=self.param)

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.close:
            headers["Connection"] = "close"
        return JSONResponse(self.body(), status_code=self.status, headers=headers)
