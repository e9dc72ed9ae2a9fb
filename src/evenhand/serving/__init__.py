"""Any model, mitigated ones included, behind the OpenAI protocol: `serve(model)`, or `evenhand serve MODEL`.

Needs the extra `serve` (pip install 'evenhand[serve]').
"""

from evenhand.serving.server import serve

__all__ = ["serve"]
