"""A server with the OpenAI protocol for any model, mitigated or not: `serve(model)`, or `evenhand serve MODEL`.

Needs the extra `serve` (pip install 'evenhand[serve]').
"""

from evenhand.integrations.openai_server.limits import Limits
from evenhand.integrations.openai_server.server import serve

__all__ = ["Limits", "serve"]
