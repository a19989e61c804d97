"""HTML from the Jinja2 templates of the package.

A template, style sheet or script is named by its path in the package, for example
``report/page/report.html.j2``. Templates escape all values, as DICOM headers and file names may
contain arbitrary text; an undefined value is an error.
"""

from __future__ import annotations

import base64
import lzma
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from leakloc.core.errors import counted
from leakloc.core.extras import LazyModule

if TYPE_CHECKING:
    import jinja2
    import markupsafe
else:  # an analysis without an HTML report does not need them
    jinja2 = LazyModule("jinja2")
    markupsafe = LazyModule("markupsafe")


def render_html(name: str, **values: object) -> str:
    """Render a template.

    Parameters
    ----------
    name : str
        Path of the template in the package.
    **values
        Variables of the template.
    """
    return _environment().get_template(name).render(values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("leakloc", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The filter `tojson` escapes <, > and &, so that no text can close a script element.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.globals.update(file=_file, digests=_digests, counted=counted)
    return environment


@cache
def _file(name: str) -> markupsafe.Markup:
    """Return a style sheet or script of the package, which may be compressed (xz)."""
    content = files("leakloc").joinpath(name).read_bytes()
    # Not escaped: the text is part of the package and contains no values of a study.
    return markupsafe.Markup(
        (lzma.decompress(content) if name.endswith(".xz") else content).decode()
    )


def _digests(names: Iterable[str]) -> str:
    """Return the hashes of scripts for the content security policy."""
    hashes = (base64.b64encode(sha256(_file(name).encode()).digest()).decode() for name in names)
    return " ".join(f"'sha256-{text}'" for text in hashes)
