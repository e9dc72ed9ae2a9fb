"""JavaScript of the page: Vega-Lite for charts and DataTables for tables, from the packages that bundle them.

Both go into the page compressed, so that it needs no network and no program but a browser.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from functools import cache
from importlib import resources
from typing import Any

from evenhand.core.draws import key_hash
from evenhand.errors import EvenhandError

EXPORTED = re.compile(r"\bexport\s*\{([^}]*)\}\s*;?")
"""The last statement of an ES module; a page that is opened as a file cannot import one from elsewhere."""


@cache
def charts_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as packed JavaScript, which defines `vegaEmbed`; made once per process."""
    import vl_convert

    return packed(_alone(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")))


@cache
def tables_library() -> str:
    """DataTables as packed JavaScript, which defines `DataTable`.

    Raises:
        EvenhandError: The installed itables has no bundle of the form that is known here.
    """
    text = resources.files("itables").joinpath("html/dt_bundle.js").read_text(encoding="utf-8")
    found = EXPORTED.search(text)
    names = dict(part.strip().split(" as ")[::-1] for part in found.group(1).split(",")) if found else {}
    if found is None or "default" not in names:
        raise EvenhandError(
            "the installed itables has no DataTables bundle that the report page can use; install itables>=2.9,<3"
        )
    return packed(_alone(f"{text[: found.start()]}window.DataTable={names['default']};{text[found.end() :]}"))


def static(name: str) -> str:
    """A style or script of ours that goes into the page as it is."""
    return resources.files("evenhand.report").joinpath("static", name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """What a content security policy calls a script that stands in the page; no other may run there."""
    return f"'sha256-{base64.b64encode(key_hash(script)).decode()}'"


def packed(value: Any) -> str:
    """A text, or anything that JSON has, as gzip in base64: no character of it acts in HTML."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), 6, mtime=0)).decode()


def _alone(script: str) -> str:
    """In a scope of its own, as modules are: libraries may use the same names."""
    return f'(() => {{"use strict";{script}\n}})();'
