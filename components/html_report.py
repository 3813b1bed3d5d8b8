"""HTML reports: a template and its values in, one self-contained page out; every value is escaped."""

from functools import cache
from pathlib import Path

import jinja2


def render_report(template: str, *, title: str, **values: object) -> str:
    """Render a template of report_templates/. The page contains no script and loads nothing."""
    return _environment().get_template(template).render(title=title, **values)


def percent(share: float) -> str:
    """A share as a percentage of up to four digits."""
    return f"{100 * share:.4g}%"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("report_templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "thousands": "{:,}".format}
    return environment
