"""The libraries that the page runs on, as text to put into it: Vega-Embed for charts, DataTables for the table."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

import vl_convert


class Libraries(NamedTuple):
    """JavaScript and CSS, without a link to anywhere."""

    charts: str
    """Sets window.vegaEmbed."""
    table: str
    """A module that exports jQuery, with DataTables and its extensions."""
    table_style: str


@cache
def libraries() -> Libraries:
    """Those that vl-convert and itables bring along."""
    bundle = files("itables") / "html"
    texts = [(bundle / f"dt_bundle.{kind}").read_text(encoding="utf-8") for kind in ("js", "css")]
    charts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # In a string of JavaScript the same text, and no end of the script that the page puts it into.
    script, style, charts = (re.sub("<(?=/?script|!--)", r"\\x3c", text, flags=re.I) for text in (*texts, charts))
    return Libraries(charts, script, style)


def policy_hash(script: str) -> str:
    """What a content security policy allows an inline script by."""
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
