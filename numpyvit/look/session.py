"""What the demo computes: predictions, traces, nudges and training steps. No HTTP here.

Each page, which has a random name of its own, has a copy of the weights, which its
training steps change, and its latest traces. Nothing is written to a file. The methods
are called by several threads at once, and raise UserError for what does not fit.
"""

import dataclasses
import itertools
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..classifier import Classifier
from ..data import Dataset, normalise
from ..errors import UserError
from ..layers.softmax import softmax_forward
from ..params import Buffer
from .attention import attention_gradients, gradient_rollout, patch_map, rollout
from .learning import descend, most_moved
from .lens import logit_lens
from .probe import Place, Probe
from .slopes import slope_of
from .trace import Trace, trace
from .twin import gradients_of

PAGES = 8  # pages that are remembered
TRACES = 4  # of each page, if they fit into the memory
TRACE_BYTES = 256_000_000  # of the traces of all pages together, about
UNDO = 100  # requests for steps that can be undone


@dataclass(frozen=True)
class Example:
    """An image to start with: pixels (H, W, C) uint8, and its class if known."""

    name: str
    pixels: Array
    label: int | None = None
    remark: str = ""


@dataclass(frozen=True)
class Traced:
    """A trace, and what it was made of. image: normalised."""

    image: Array
    label: int
    weights: Buffer
    trace: Trace


@dataclass
class Page:
    """A page. before: the weights and the accuracies before each request for steps."""

    weights: Buffer
    accuracy: float | None = None
    traces: "OrderedDict[int, Traced]" = field(default_factory=OrderedDict)
    before: list[tuple[Buffer, float | None]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)


class Session:
    """A classifier, examples, and the pages.

    test: images that the accuracy is measured on, None if there are none. It may be set
    later, since reading it can take a while.
    """

    def __init__(
        self, classifier: Classifier, examples: list[Example], test: Dataset | None = None
    ) -> None:
        self.classifier = classifier
        self.examples = examples
        self.test = test
        self.pages: OrderedDict[str, Page] = OrderedDict()
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        c = classifier.config
        self.shape = (*c.image, c.channels)
        # The steps are the same for every image; only their values differ.
        image = np.random.default_rng(0).normal(size=self.shape)
        weights = classifier.params
        self.steps = trace(
            classifier.model, weights, image.astype(weights.flat.dtype), 0, with_formulas=True
        )
        size = sum(step.value.nbytes for step in self.steps.steps)
        self.kept = max(1, min(TRACES, TRACE_BYTES // (PAGES * size)))
        self.gradients: dict[int, int] | None = None  # None until find_gradients has ended

    def find_gradients(self) -> None:
        """Find the gradient of each step; it takes seconds and may run in a thread."""
        try:
            self.gradients = gradients_of(self.classifier.model, self.steps)
        except Exception as error:  # the page works without them
            print(f"numpyvit: the gradients were not found: {error!r}"[:500], file=sys.stderr)
            self.gradients = {}

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to know of the model."""
        c = self.classifier
        gradients = self.gradients or {}
        steps = [
            {
                "layer": step.layer,
                "function": step.function,
                "variable": step.variable,
                "file": step.file,
                "line": step.line,
                "source": step.source,
                "shape": step.value.shape,
                "formula": step.formula,
                "weight": step.weight,
                "backward": n >= self.steps.forward,
                "gradient": gradients.get(n),
            }
            for n, step in enumerate(self.steps.steps)
        ]
        return {
            "config": c.config.to_dict(),
            "classes": c.classes,
            "weights": {name: {"shape": x.shape} for name, x in c.params.items()},
            "steps": steps,
            "gradients_ready": self.gradients is not None,
            "images": [{"name": e.name, "label": e.label} for e in self.examples],
            "size": c.config.image,
            "channels": c.config.channels,
            "is_drawing": c.box > 0,
            "mean": c.mean.tolist(),
            "std": c.std.tolist(),
            "accepts_learning": True,
        }

    def predict(self, page: str, pixels: Array) -> list[float]:
        """Return the probabilities (K) of an image, by the weights of the page."""
        return self.with_weights(self.page(page).weights).predict(pixels[None], 1)[0].tolist()

    def trace(self, page: str, pixels: Array, label: int) -> dict[str, Any]:
        """Make a trace and keep it.

        lens: the probabilities after 0, 1, ... blocks. rollout, gradient_rollout: a number
        for each patch (attention.py), the second for the label.
        """
        found = self.page(page)
        image, weights = self.normalised(pixels), found.weights.copy()
        traced = trace(self.classifier.model, weights, image, label)
        number = next(self.numbers)
        with found.lock:
            found.traces[number] = Traced(image, label, weights, traced)
            while len(found.traces) > self.kept:
                found.traces.popitem(last=False)
        c = self.classifier.config
        lens = logit_lens(c, weights, image)
        attention, gradients = attention_gradients(
            self.classifier.model, weights, image[None], np.array([label])
        )
        rolled = rollout([*attention.values()])
        weighted = gradient_rollout([*attention.values()], [*gradients.values()])
        return {
            "trace": number,
            "loss": traced.loss,
            "logits": traced.logits[0].tolist(),
            "probabilities": softmax_forward(traced.logits)[0][0].tolist(),
            "lens": softmax_forward(lens)[0].tolist(),
            "rollout": patch_map(rolled, c)[0].ravel().tolist(),
            "gradient_rollout": patch_map(weighted, c)[0].ravel().tolist(),
        }

    def arrays(
        self,
        page: str,
        number: int,
        steps: list[int],
        weights: list[str],
        gradients: list[str],
        dimages: bool,
    ) -> dict[str, Array]:
        """Return arrays: "step.12", "weight.NAME", "gradient.NAME", "dimages"."""
        traced = self.traced(page, number)
        found = {}
        for n in steps:
            if not 0 <= n < len(traced.trace.steps):
                raise UserError(
                    f"there is no step {n}: the last one is {len(traced.trace.steps) - 1}"
                )
            found[f"step.{n}"] = traced.trace.steps[n].value
        found |= {f"weight.{name}": traced.weights[name] for name in weights}
        found |= {f"gradient.{name}": traced.trace.grads[name] for name in gradients}
        if dimages:
            found["dimages"] = traced.trace.dimages
        return found

    def nudge(
        self, page: str, number: int, place: Place, index: int, mistake: str | None
    ) -> dict[str, Any]:
        """Return the slope of the loss for one number, as slope_of."""
        traced = self.traced(page, number)
        probe = Probe(self.classifier.model, traced.weights, traced.image, traced.label)
        slope = slope_of(probe, place, index, self.gradients or {}, mistake)
        return dataclasses.asdict(slope)

    def step(self, page: str, pixels: Array, label: int, lr: float, steps: int) -> dict[str, Any]:
        """Take steps of plain SGD on one image.

        losses, probabilities: before the first step and after each. moved: the ten
        weights that have changed most. Raises UserError, and changes nothing, if the
        weights become infinite.
        """
        found = self.page(page)
        image = self.normalised(pixels)
        with found.lock:
            weights, accuracy = found.weights.copy(), found.accuracy
            if accuracy is None:
                accuracy = self.accuracy(weights)
            before = weights.copy()
            losses, logits = descend(self.classifier.model, weights, image, label, lr, steps)
            after = self.accuracy(weights)
            found.before.append((before, accuracy))
            del found.before[:-UNDO]
            found.weights, found.accuracy = weights, after
            return {
                "losses": losses,
                "probabilities": softmax_forward(logits)[0].tolist(),
                "moved": most_moved(before, weights, 10),
                "accuracy_before": accuracy,
                "accuracy_after": after,
                "undo": len(found.before),
            }

    def undo(self, page: str) -> dict[str, Any]:
        """Undo the last request for steps, to the same bits."""
        found = self.page(page)
        with found.lock:
            if not found.before:
                raise UserError("there is no step that could be undone")
            found.weights, found.accuracy = found.before.pop()
            return {"undo": len(found.before), "accuracy": found.accuracy}

    def reset(self, page: str) -> dict[str, Any]:
        """Go back to the weights of the model."""
        found = self.page(page)
        with found.lock:
            found.weights, found.accuracy = self.classifier.params, None
            found.before.clear()
            return {"undo": 0, "accuracy": None}

    def page(self, name: str) -> Page:
        """Return a page. Of too many, the one not seen longest is forgotten."""
        with self.lock:
            found = self.pages.setdefault(name, Page(self.classifier.params))
            self.pages.move_to_end(name)
            if len(self.pages) > PAGES:
                self.pages.popitem(last=False)
            return found

    def traced(self, page: str, number: int) -> Traced:
        """Return a trace of a page, or raise UserError if it has been forgotten."""
        found = self.page(page).traces.get(number)
        if found is None:
            raise UserError(f"trace {number} has been forgotten: draw again")
        return found

    def normalised(self, pixels: Array) -> Array:
        """Return pixels (H, W, C) as the model receives them."""
        c = self.classifier
        return normalise(pixels[None], c.mean, c.std)[0].astype(c.params.flat.dtype)

    def with_weights(self, weights: Buffer) -> Classifier:
        """Return the classifier with other weights."""
        return dataclasses.replace(self.classifier, params=weights)

    def accuracy(self, weights: Buffer) -> float | None:
        """Return the accuracy on the test images, None if there are none."""
        test = self.test
        if test is None:
            return None
        probabilities = self.with_weights(weights).predict(test.images)
        return float((probabilities.argmax(-1) == test.labels).mean())
