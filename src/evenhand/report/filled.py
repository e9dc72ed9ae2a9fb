"""Templates of the report, filled with values."""

from __future__ import annotations

from typing import Any

from evenhand.core.sinks import link, markdown
from evenhand.core.text_output import visible
from evenhand.report.text import headed, metric_name


def filled(template: str, *, markup: bool, **values: Any) -> str:
    """Fill a file of `templates/` with values; a name without a value is an error.

    Args:
        template: Name of the file.
        markup: Whether every value is escaped as HTML. In Markdown every name goes through the filter `md` instead.
        **values: The values, by their names in the template.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evenhand.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=markup,
        finalize=_shown if markup else None,
    )
    environment.filters |= {"headed": headed, "link": link, "md": markdown, "words": metric_name}
    return environment.get_template(template).render(**values)


def _shown(value: Any) -> Any:
    """Prepare a value for a page: in a text, invisible and direction-changing characters are spelled out."""
    return visible(value) if type(value) is str else value  # markup of our own is of another type
