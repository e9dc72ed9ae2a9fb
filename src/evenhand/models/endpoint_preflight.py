"""Check a server before many requests: one clear line if it cannot do what is about to be asked.

Checked are the connection, key and model name; log-probabilities if letters will be read; and the temperature:
two draws must differ. A server that ignores it would give a hundred equal draws, and numbers that look certain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core import text_output
from evenhand.errors import EndpointError, SettingsError, suggest
from evenhand.interfaces import Dialogue, Sampling
from evenhand.models.endpoint_requests import sentence, without_field
from evenhand.models.endpoint_servers import listed, owner
from evenhand.models.letter_tokens import fault_of
from evenhand.prompting.thinking import is_cut, parts

if TYPE_CHECKING:
    from evenhand.models.endpoint_client import EndpointClient, Failed
    from evenhand.models.endpoint_replies import Answered

DRAWS = 6
"""Maximum number of draws compared; true draws of a sentence are all equal only if the model is almost certain."""
PROMPT = Dialogue(()).user("Write one sentence about something that you saw on a walk, and begin with any word.")
LETTERS = Dialogue(()).user("Which is a fruit?\nA. apple\nB. brick\nAnswer with a single letter.")


class Preflight(NamedTuple):
    """Findings about a server."""

    server: str
    """`owned_by` in the server's list of models; "" if it is missing."""
    seconds: float
    """Duration of a short reply, in seconds."""
    thinks: bool
    """Whether that reply began with a thought, which costs time and tokens for every reply."""
    new_tokens: int
    """Number of tokens of that reply, thought included; 0 if the server does not count them."""
    hidden: bool = False
    """Whether that reply was cut before its first word, for example because a thought is not shown."""

    def line(self, name: str) -> str:
        """Return a summary in one line."""
        cost = f"{self.new_tokens} tokens, {text_output.number(self.seconds)} s"
        thought = ", including a thought: every reply has that cost" if self.thinks else ""
        if self.hidden:
            thought = (
                " and was cut before its first word; a thought that is not shown may have used all of them: give it "
                "room with thinking_tokens"
            )
        return f"{name}{f' on {self.server}' if self.server else ''} answers (a short reply took {cost}{thought})"


class ServerCheck:
    """Checks whether a server can be used; none of the replies is cached."""

    def __init__(
        self,
        client: EndpointClient,
        url: str,
        model: str,
        body: Callable[[Dialogue, Sampling | None], dict[str, Any]],
    ) -> None:
        """Create the check; nothing is sent yet.

        Args:
            client: Sends requests.
            url: URL of the server, for messages.
            model: Name of the model on the server.
            body: Makes the body for a reply or, if the sampling is None, for the first token's log-probabilities.
        """
        self._client, self._url, self._model, self._body = client, url, model, body

    def reach(self) -> Preflight:
        """Ask for the list of models and for a short reply. A model that answers need not be listed.

        Raises:
            EndpointError: The server cannot be reached, or refuses the key or the request.
            SettingsError: The server has no model of that name.
        """
        from evenhand.models.endpoint_client import Failed

        models = self._client.send(
            "/models", None, lambda content: (listed(content), owner(content, self._model)), Event(), tries=1
        )
        known, owned = models if not isinstance(models, Failed) else ({}, "")
        begun = time.monotonic()
        short = self._body(PROMPT, Sampling(max_new_tokens=16))
        first = _reply(self._client, short, lambda note: _unusable(self._url, self._model, known, note))
        return Preflight(
            owned,
            time.monotonic() - begun,
            bool(parts(first.text).thought),
            first.new_tokens,
            first.hidden,
        )

    def letters(self) -> None:
        """Read the log-probabilities of a first token.

        Raises:
            EndpointError: The server gives none, or they are not log-probabilities.
        """
        url = self._url
        answer = _reply(
            self._client,
            self._body(LETTERS, None),
            lambda note: EndpointError(f"{url} gives no log-probabilities: {_with_remedy(note)}"),
        )
        if fault := fault_of(answer.top):
            raise EndpointError(f"{url} cannot be read by letters: {fault}")

    def draws(self) -> None:
        """Draw at temperature 1 until two replies differ.

        Raises:
            EndpointError: All draws are equal.
        """
        bodies = (self._body(_draw(n), _SAMPLED) for n in range(DRAWS))
        _check_draws(self._client, self._url, self._model, bodies)


_SAMPLED = Sampling(temperature=1.0, max_new_tokens=24, seed=1)


def _draw(n: int) -> Dialogue:
    return Dialogue(PROMPT.messages, draw=n)


def _with_remedy(note: str) -> str:
    remedy = without_field("logprobs")
    return note if remedy in note else f"{sentence(note)} If it never gives them, {remedy}"


def _unusable(url: str, model: str, known: dict[str, Any], note: str) -> Exception:
    if known and model not in known:
        return SettingsError(f"{url} has no model {model!r}. {suggest(model, known)} It said: {note}")
    return EndpointError(f"{url} cannot be used, so nothing was asked: {note}")


def _reply(client: EndpointClient, body: dict[str, Any], wrong: Callable[[str], Exception]) -> Answered:
    from evenhand.models.endpoint_client import Failed

    outcome: Answered | Failed = client.ask(body, Event())
    if isinstance(outcome, Failed):
        raise wrong(outcome.note)
    return outcome


def _check_draws(client: EndpointClient, url: str, model: str, bodies: Iterable[dict[str, Any]]) -> None:
    """Draw until two replies differ; replies that are only a thought are compared by the thought.

    If thoughts are not shown and nothing else arrives, the check is inconclusive and passes.
    """
    texts: set[str] = set()
    count = 0
    for body in bodies:
        answer = _reply(client, body, lambda note: EndpointError(f"{url} draws no replies: {note}"))
        texts.add(answer.text if not is_cut(answer.text) else parts(answer.text).thought)
        count += 1
        if len(texts) > 1 or (answer.hidden and count == DRAWS):
            return
    raise EndpointError(
        f"{url} gave {count} equal replies of {model!r} at temperature 1: it does not sample, or ignores "
        "the seed. Turn off its cache of replies, or name its software (transformers serve draws only with "
        "server='transformers'); for greedy replies ask at temperature 0. If the model is that certain, "
        "preflight=False skips this check before a comparison"
    )
