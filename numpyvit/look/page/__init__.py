"""The page that shows a model: its files in this folder, put together into one HTML text."""

import json
from importlib.resources import files
from typing import Any

SCRIPTS = (  # in the order in which they need each other
    "store.js",
    "formula.js",
    "matrix.js",
    "inspector.js",
    "views.js",
    "attention.js",
    "learn.js",
    "tour.js",
    "main.js",
)


def page_html(nonce: str, data: dict[str, Any] | None = None) -> str:
    """Return the page as one HTML text, which needs no other file.

    nonce: the random word that the Content-Security-Policy of the page asks of each script
    and style. data: a model and its traces, for a page that is opened from the disk; without
    them the page asks the server that it came from.
    """
    folder = files(__package__)
    text = {name: (folder / name).read_text("utf-8") for name in ("page.html", "style.css")}
    script = "\n".join((folder / name).read_text("utf-8") for name in SCRIPTS)
    # "<" is escaped, so that no text in the data can end the script element.
    embedded = json.dumps(data).replace("<", "\\u003c") if data else "null"
    parts = {"NONCE": nonce, "STYLE": text["style.css"], "SCRIPT": script, "DATA": embedded}
    page = text["page.html"]
    for name, value in parts.items():
        page = page.replace(f"@{name}@", value)
    return page
