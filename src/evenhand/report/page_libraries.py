"""JavaScript of the page: Vega-Lite for charts and DataTables for tables, from the packages that bundle them.

Both go into the page compressed, so that it needs only a browser and no network.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evenhand.core.draws import key_hash
from evenhand.errors import EvenhandError

EXPORTED = re.compile(r"\bexport\s*\{([^}]*)\}\s*;?")
"""Last statement of an ES module; a page that is opened as a file cannot import modules from elsewhere."""


@cache
def charts_library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as packed JavaScript that defines `vegaEmbed`; made once per process."""
    import vl_convert

    return packed(_alone(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")))


@cache
def tables_library() -> str:
    """Return DataTables as packed JavaScript that defines `DataTable`.

    Raises:
        EvenhandError: The installed itables has no bundle in the expected form.
    """
    spec = find_spec("itables")  # found but not imported, as it imports pandas
    folders = (spec.submodule_search_locations if spec else None) or ()
    text = "".join(Path(folder, "html/dt_bundle.js").read_text(encoding="utf-8") for folder in folders[:1])
    found = EXPORTED.search(text)
    names = dict(part.strip().split(" as ")[::-1] for part in found.group(1).split(",")) if found else {}
    if found is None or "default" not in names:
        raise EvenhandError(
            "the installed itables has no DataTables bundle that the report page can use; install itables>=2.9,<3"
        )
    return packed(_alone(f"{text[: found.start()]}window.DataTable={names['default']};{text[found.end() :]}"))


def static(name: str) -> str:
    """Read a style or script of evenhand that goes into the page unchanged."""
    return resources.files("evenhand.report").joinpath("static", name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """Return the hash by which a content security policy allows a script in the page; no other may run there."""
    return f"'sha256-{base64.b64encode(key_hash(script)).decode()}'"


def packed(value: Any) -> str:
    """Pack a text or JSON value as gzip in base64, none of whose characters has a meaning in HTML."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), 6, mtime=0)).decode()


def _alone(script: str) -> str:
    """Wrap a script in its own scope, as modules have, since libraries may use the same names."""
    return f'(() => {{"use strict";{script}\n}})();'
