"""What each route of the demo's server reads from its request, and what it answers."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend.arrays import Array
from ..classifier import Classifier
from ..errors import UserError
from . import wire
from .fields import integer, pixels_of, positive, several
from .probe import IMAGE, Place
from .session import Session

ANY = 2**53  # the largest integer that a browser can send exactly


@dataclass(frozen=True)
class Request:
    """page: the name of the page. fields: JSON. image: the bytes of an image file."""

    page: str
    fields: dict[str, Any]
    image: bytes


def predict(session: Session, request: Request) -> dict[str, Any]:
    """Classify an image file, or one of the examples."""
    if request.image:
        pixels, remark = read_image(session.classifier, request.image)
    elif not session.examples:
        raise UserError("there are no images: send one")
    else:
        example = session.examples[integer(request.fields, "image", 0, len(session.examples) - 1)]
        pixels, remark = example.pixels, example.remark
    return {
        "probabilities": session.predict(request.page, pixels),
        "pixels": pixels.ravel().tolist(),
        "remark": remark,
    }


def trace(session: Session, request: Request) -> dict[str, Any]:
    """Trace an image."""
    pixels, label = image_and_label(session, request)
    return session.trace(request.page, pixels, label)


def arrays(session: Session, request: Request) -> bytes:
    """Send arrays of a trace."""
    fields = request.fields
    found = session.arrays(
        request.page,
        integer(fields, "trace", 0, ANY),
        several(fields, "steps", int),
        several(fields, "weights", str),
        several(fields, "gradients", str),
        fields.get("dimages") is True,
    )
    return wire.to_bytes(found)


def nudge(session: Session, request: Request) -> dict[str, Any]:
    """Compare the slope for one number with the backward pass."""
    fields = request.fields
    place: Place = IMAGE
    if "step" in fields:
        place = integer(fields, "step", 0, session.steps.forward - 1)
    elif "weight" in fields:
        place = str(fields["weight"])
        if place not in session.classifier.params.names():
            raise UserError(f"no weight is called {place[:100]!r}")
    index = integer(fields, "pixel" if "pixel" in fields else "index", 0, ANY)
    mistake = fields.get("broken")
    return session.nudge(
        request.page,
        integer(fields, "trace", 0, ANY),
        place,
        index,
        None if mistake is None else str(mistake)[:100],
    )


def step(session: Session, request: Request) -> dict[str, Any]:
    """Take training steps."""
    pixels, label = image_and_label(session, request)
    lr, steps = positive(request.fields, "lr", 100), integer(request.fields, "steps", 1, 10)
    return session.step(request.page, pixels, label, lr, steps)


def undo(session: Session, request: Request) -> dict[str, Any]:
    """Undo the last request for steps."""
    return session.undo(request.page)


def reset(session: Session, request: Request) -> dict[str, Any]:
    """Undo all steps."""
    return session.reset(request.page)


ROUTES: dict[str, Callable[[Session, Request], dict[str, Any] | bytes]] = {
    "/predict": predict,
    "/trace": trace,
    "/arrays": arrays,
    "/nudge": nudge,
    "/step": step,
    "/undo": undo,
    "/reset": reset,
}


def image_and_label(session: Session, request: Request) -> tuple[Array, int]:
    """Return the pixels (H, W, C) and the label of a request."""
    classes = session.classifier.config.classes
    pixels = pixels_of(request.fields, session.shape)
    return pixels, integer(request.fields, "label", 0, classes - 1)


def read_image(classifier: Classifier, data: bytes) -> tuple[Array, str]:
    """Return what Classifier.read_image returns, for an image file in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        try:
            return classifier.read_image(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), "the image")) from None
