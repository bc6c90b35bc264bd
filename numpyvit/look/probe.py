"""The loss of one image as a function of any number that the model computes on the way.

A nudge adds something to one array at the moment when its step has been recorded. What
is computed from the array afterwards then changes, and with it the loss. Everything
here is computed in float64, in the textbook form of the layers (`ops.textbook`).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ..backend.arrays import Array
from ..backend.ops import textbook
from ..errors import UserError
from ..params import Buffer
from ..vit import ViT
from .recorder import Recorder
from .trace import Trace, backward_pass, forward_pass, plain_model, trace

# Where a number is: in the array of a step (its number), in a weight (its name) or in
# IMAGE.
Place = int | str
IMAGE = "image"


class Probe:
    """The loss of one image and label as a function of any number, in float64.

    image (H, W, C), normalised. model, params and image may have any dtype, and are not
    changed.
    """

    def __init__(self, model: ViT, params: Buffer, image: Array, label: int) -> None:
        self.model, self.weights = plain_model(model, params.astype(np.float64))
        self.image = image.astype(np.float64)
        self.label = label

    def loss(self, place: Place = IMAGE, delta: Array | float = 0.0) -> float:
        """Return the loss after delta has been added to the array at a place.

        Raises UserError for a step that does not exist, or whose array is a constant.
        """
        weights, image = self.weights.copy(), self.image.copy()

        def nudge(x: Array) -> None:
            check_variable(x)
            x += delta

        with textbook():
            if isinstance(place, int):
                with at_step(place, nudge):
                    return float(forward_pass(self.model, weights, image, self.label)[1])
            nudge(image if place == IMAGE else weights[place])
            return float(forward_pass(self.model, weights, image, self.label)[1])

    def array(self, place: Place) -> Array:
        """Return a copy of the array at a place; a step may be of the backward pass."""
        if isinstance(place, str):
            return self.image.copy() if place == IMAGE else self.weights[place].copy()
        found = []
        with at_step(place, lambda x: found.append(np.array(x))):
            self.backward()
        return found[0]

    def gradient(self, place: Place, steps: dict[int, int]) -> Array | None:
        """Return the gradient of the array at a place, by the backward pass.

        steps: the result of gradient_steps. The gradient of a step that is not in it is
        None: the backward pass does not compute it.
        """
        if isinstance(place, int):
            return self.array(steps[place]) if place in steps else None
        grads, dimages = self.backward()
        return dimages[0] if place == IMAGE else grads[place]

    def backward(self) -> tuple[Buffer, Array]:
        """Return the gradients of the weights, and of the image, (1, H, W, C)."""
        grads = self.weights.zeros_like()
        with textbook():
            _, _, cache = forward_pass(self.model, self.weights, self.image, self.label)
            return grads, backward_pass(self.model, cache, grads)

    def trace(self) -> Trace:
        """Return the trace of the image in float64."""
        return trace(self.model, self.weights, self.image, self.label)


@contextmanager
def at_step(step: int, act: Callable[[Array], None]) -> Iterator[None]:
    """Call act with the array of one step when it is recorded, inside a `with` block.

    Raises UserError at the end if there was no such step.
    """
    is_done = False

    def on_step(number: int, x: Array) -> None:
        nonlocal is_done
        if number == step:
            is_done = True
            sys.settrace(None)  # the rest runs at full speed
            act(x)

    with Recorder(on_step).recording():
        yield
    if not is_done:
        raise UserError(f"there is no step {step} in this pass")


def check_variable(x: Array) -> None:
    """Raise UserError for an array that cannot be changed, such as a table."""
    if not x.flags.writeable or x.dtype.kind != "f":
        raise UserError("this array is a constant, or repeats another one: it cannot be changed")


def loss_with_nudge(
    model: ViT, params: Buffer, image: Array, label: int, step: int, delta: Array
) -> float:
    """Return the loss of an image after delta has been added to the array of a step.

    This is Probe.loss for a single loss.
    """
    return Probe(model, params, image, label).loss(step, delta)
