"""The page as one file, which opens from the disk without Python or a network."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..classifier import Classifier
from ..storage.files import write_atomically
from . import wire
from .page import page_html
from .session import Example, Session


def snapshot(classifier: Classifier, examples: list[Example]) -> str:
    """Return the page with the traces of these images in it, as one HTML text.

    The label of an image without one is the likeliest class.
    """
    session = Session(classifier, examples)
    session.find_gradients()
    data = {"model": session.describe(), "traces": [one(session, e) for e in examples]}
    # Through JSON, which has lists where we have tuples.
    return page_html("snapshot", json.loads(json.dumps(data)))


def save_snapshot(path: Path, classifier: Classifier, examples: list[Example]) -> int:
    """Write the page to a file, atomically, and return its size in bytes.

    Raises UserError if it cannot be written.
    """
    page = snapshot(classifier, examples).encode()
    write_atomically(path, lambda f: f.write(page))
    return len(page)


def one(session: Session, example: Example) -> dict[str, Any]:
    """Return the trace of one image, as the page expects it."""
    label = example.label
    if label is None:
        label = int(np.argmax(session.predict("snapshot", example.pixels)))
    found = session.trace("snapshot", example.pixels, label)
    names = session.classifier.params.names()
    steps = range(len(session.steps.steps))
    arrays = session.arrays("snapshot", found["trace"], [*steps], names, names, True)
    unique, same = without_repeats(arrays)
    return {
        **found,
        "name": example.name,
        "remark": example.remark,
        "pixels": example.pixels.ravel().tolist(),
        "label": label,
        "arrays": base64.b64encode(wire.to_bytes(unique)).decode(),
        "same": same,
    }


def without_repeats(arrays: dict[str, Array]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of different content, and the name of an equal one for each other.

    Many steps only pass an array on, so this halves the size of the page.
    """
    names: dict[bytes, str] = {}
    same = {}
    for name, x in arrays.items():
        first = names.setdefault(np.ascontiguousarray(x, np.float32).tobytes(), name)
        if first != name:
            same[name] = first
    return {name: arrays[name] for name in names.values()}, same
