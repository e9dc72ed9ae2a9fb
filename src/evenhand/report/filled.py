"""Templates of the report, filled with values."""

from __future__ import annotations

from typing import Any

from evenhand.report.text import headed, markdown, metric_name


def filled(template: str, *, markup: bool, **values: Any) -> str:
    """A file of `templates/` with values in it; a name in it that has no value is an error.

    Args:
        template: Name of the file.
        markup: Whether every value is escaped as HTML. In Markdown every name goes through the filter `md` instead.
        **values: By the name that the template has for them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evenhand.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=markup,
    )
    environment.filters |= {"headed": headed, "md": markdown, "words": metric_name}
    return environment.get_template(template).render(**values)
