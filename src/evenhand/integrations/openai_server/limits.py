"""How much one client, or all of them together, may ask of a server: the limits of `evenhand serve`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from evenhand.core import specs
from evenhand.errors import SettingsError, suggest

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one request from holding up all others.

    The defaults allow everything that fits a context of a million tokens of prose.
    """

    max_body_mib: int = 8
    """Largest request body in MiB; a larger one is refused with status 413, before all of it is read."""
    max_waiting_mib: int = 64
    """Maximum total of the bodies of all open requests, in MiB; beyond it, status 429."""
    max_messages: int = 2048
    """Maximum number of messages or prompts of one request, and of parts of one message."""
    max_characters_per_token: int = 16
    """A text with more characters than this times the context length is refused before it is tokenised. Prose has about
    4 characters per token; raise it for texts of long runs of blanks, which some vocabularies write as one token."""
    max_queue: int = 1024
    """Maximum number of replies that wait or are being written; beyond it, status 429 and Retry-After."""
    max_connections: int = 512
    """Maximum number of connections at a time; further ones are closed at once."""
    head_seconds: float = 10.0
    """Seconds that the head of a request may take, from the opening of the connection or its first byte."""
    body_seconds: float = 60.0
    """Seconds within which the whole body must arrive; afterwards, status 408."""
    read_seconds: float = 60.0
    """Seconds for which a client may leave a reply unread; afterwards the connection is closed."""

    def __post_init__(self) -> None:
        """Refuse limits that would refuse every request.

        Raises:
            SettingsError: A limit is not a number above 0.
        """
        for field in fields(self):
            value = self.__dict__[field.name]
            whole = field.type == "int"
            wrong = isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value > 0
            if wrong:
                kind = "a whole number of at least 1" if whole else "a number of seconds above 0"
                raise SettingsError(f"{field.name}={value!r} must be {kind}; the default is {field.default}")

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Read "max_queue=100, read_seconds=30"; limits that are not named keep their defaults.

        Raises:
            SettingsError: A name is not that of a limit, or a value cannot be used.
        """
        given = specs.parse(f"limits({text})").settings
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise SettingsError(f"{name!r} is not a limit of the server. {suggest(name, names)}")
        return cls(**given)

    @property
    def body_bytes(self) -> int:
        """Maximum size of one body in bytes."""
        return self.max_body_mib * MIB

    @property
    def waiting_bytes(self) -> int:
        """Maximum total of the bodies of all open requests in bytes; one body of the largest size always fits."""
        return max(self.max_waiting_mib, self.max_body_mib) * MIB

    def characters(self, context: int | None) -> int | None:
        """Return the maximum number of characters of a text for a context length; None if that is not known."""
        return None if context is None else context * self.max_characters_per_token
