"""Record every array that the layers compute for an image, with the line that made it.

The arrays are those of the layers' own functions, forward and backward: while the model
runs, every array that a line of the files in numpyvit/layers assigns is copied
(recorder.py). So there is no second description of the model that could differ from the
first one, and a new layer is recorded without a change here. The functions are recorded
as they stand on their pages: within `trace` the faster forms of attention are not used.
"""

import functools
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..backend.ops import textbook
from ..losses import as_probabilities, cross_entropy_backward, cross_entropy_forward
from ..params import Buffer
from ..vit import ViT
from ..watch import named_layers
from .broken import BACKWARD
from .formulas import Symbol, Tree, compiled, gather, run
from .recorder import Recorder
from .statements import Statement, file_of, recorded_calls, returned_values, without_calls

Key = tuple[str, tuple[int, ...], bytes]  # two arrays with equal keys have equal values


@dataclass(frozen=True)
class Step:
    """An array that a statement assigned, an argument, or a returned value.

    layer: the name of the layer, such as "blocks.0.attention", "" for the model itself.
    function: the function that the statement belongs to, such as "softmax_forward".
    variable: the name of the array; "return" for a value that has no name. file, line,
    source: the statement; source is "" for an argument. value: a copy of the array, as
    it was after the statement. formula: how it is computed from other steps
    (formulas.py), None if that is not known. weight: the name of the weight that the
    array is, if it is one.
    """

    layer: str
    function: str
    variable: str
    file: str
    line: int
    source: str
    value: Array
    formula: Tree | None
    weight: str | None = None


@dataclass(frozen=True)
class Trace:
    """One image, forward and backward.

    steps: in the order in which they were computed; the first `forward` of them are
    those of the forward pass. logits (1, K), loss: its results. grads: the gradients of
    the weights. dimages (1, H, W, C): that of the image.
    """

    steps: list[Step]
    forward: int
    logits: Array
    loss: float
    grads: Buffer
    dimages: Array


def trace(
    model: ViT, params: Buffer, image: Array, label: int, with_formulas: bool = False
) -> Trace:
    """Record the forward and the backward pass of one image (H, W, C), normalised.

    label is the class whose cross-entropy is the loss. Every token of the last block is
    computed. Raises UserError for an image or a label that does not fit the model.
    """
    plain, weights = plain_model(model, params)
    grads = weights.zeros_like()
    recorder = Tracer(plain, weights, with_formulas)
    with textbook(), recorder.recording():
        logits, loss, cache = forward_pass(plain, weights, image, label)
        forward = len(recorder.steps)
        dimages = backward_pass(plain, cache, grads)
    return Trace(recorder.steps, forward, logits, float(loss), grads, dimages)


def plain_model(model: ViT, params: Buffer) -> tuple[ViT, Buffer]:
    """Return the model without shortcuts, and the same weights as a Buffer for it."""
    plain = ViT(model.config, shortcuts=False)
    return plain, Buffer(plain.params, params.flat)


def forward_pass(
    plain: ViT, weights: Buffer, image: Array, label: int
) -> tuple[Array, Any, tuple[Any, Any]]:
    """Return the logits (1, K) of one image (H, W, C), its loss, and the caches."""
    logits, cache = plain.forward(weights, np.asarray(image)[None])
    targets = as_probabilities(logits, np.array([label]))
    loss, c_loss = cross_entropy_forward(logits, targets)
    return logits, loss, (cache, c_loss)


def backward_pass(plain: ViT, cache: tuple[Any, Any], grads: Buffer) -> Array:
    """Add the weights' gradients into grads; return that of the image (1, H, W, C)."""
    with BACKWARD:
        dlogits = cross_entropy_backward(1.0, cache[1])
        return plain.backward(dlogits, cache[0], grads, need_dx=True)


class Tracer(Recorder):
    """A Recorder that copies each array and finds its formula.

    weights: the weights of the model, whose arrays are recognised.
    """

    def __init__(self, model: Any, weights: Buffer, with_formulas: bool = False) -> None:
        super().__init__(names={id(layer): name for name, layer in named_layers(model)})
        self.weights = {id(weights[name]): name for name in weights}
        self.with_formulas = with_formulas
        self.steps: list[Step] = []
        self.latest: dict[Key, int] = {}  # the last step with these values

    def add(self, frame: FrameType, statement: Statement | None, found: dict[str, Array]) -> None:
        """Append a step for each array."""
        now, code = self.running[-1], frame.f_code
        formulas = self.formulas(frame, statement, found)
        line = statement.line if statement else code.co_firstlineno
        source = statement.text if statement else ""
        for name, x in found.items():
            now.known[name] = len(self.steps)
            if self.with_formulas:
                self.latest[key_of(x)] = len(self.steps)
            self.steps.append(
                Step(
                    layer=now.layer,
                    function=code.co_name,
                    variable=name,
                    file=file_of(code),
                    line=line,
                    source=source,
                    value=np.array(x, order="C"),
                    formula=formulas[name],
                    weight=self.weights.get(id(x)),
                )
            )

    def finish_line(self, frame: FrameType, result: Any = None) -> None:
        """Record the arrays of a line; remember the variables before the next one."""
        super().finish_line(frame, result)
        if self.with_formulas:
            self.running[-1].before = dict(frame.f_locals)

    def formulas(
        self, frame: FrameType, statement: Statement | None, found: dict[str, Array]
    ) -> dict[str, Tree | None]:
        """Return the formula of each array that a statement has made."""
        if not self.with_formulas or not found:
            return dict.fromkeys(found)
        made = self.symbols_after(frame, statement) if statement else {}
        trees: dict[str, Tree | None] = {}
        for name, x in found.items():
            symbol = made.get(name)
            if isinstance(symbol, Symbol) and symbol.shape == x.shape:
                trees[name] = symbol.tree
            else:
                trees[name] = self.same(x) or self.part(x)
        return trees

    def symbols_after(self, frame: FrameType, statement: Statement) -> dict[str, Any]:
        """Run a statement with Symbols in place of arrays, and return the variables.

        The result is empty if the statement does something that Symbols cannot follow.
        """
        now = self.running[-1]
        flags = recorded_calls(statement, frame)
        if sum(flags) != len(now.returned):  # as in `f(x) if a else g(x)`
            return {}
        names = {name: self.symbol(x, now.known.get(name)) for name, x in now.before.items()}
        calls = {f"<call {i}>": self.symbol(x) for i, x in enumerate(now.returned)}
        try:
            made = run(code_of(statement, flags), {**names, **calls}, frame.f_globals)
        except (TypeError, ValueError, AttributeError, NotImplementedError, IndexError):
            return {}
        if "return" in made:
            made |= returned_values(statement, made["return"])
        return made

    def same(self, x: Array) -> Tree | None:
        """Return the formula of an array that has the values of an earlier step.

        A weight has no formula, even if another array has the same values.
        """
        step = None if id(x) in self.weights else self.latest.get(key_of(x))
        return None if step is None else step_tree(step, x.shape)

    def part(self, x: Array) -> Tree | None:
        """Return the formula of an argument that is a part of an array of the caller.

        Such as `qkv[:2]`, which has no name until the function that it is passed to
        gives it one.
        """
        if id(x) in self.weights:
            return None
        caller = self.running[-2]
        for name, whole in caller.before.items():
            step = caller.known.get(name)
            if step is not None and isinstance(whole, np.ndarray):
                index = places_in(x, whole)
                if index is not None:
                    return gather(Symbol(step_tree(step, whole.shape)), index).tree
        return None

    def symbol(self, value: Any, step: int | None = None) -> Any:
        """Return a variable's value with Symbols in place of its arrays."""
        if isinstance(value, tuple):
            return tuple(self.symbol(x) for x in value)
        if not isinstance(value, np.ndarray):
            return value
        if step is None:
            step = self.latest.get(key_of(value))
        return value if step is None else Symbol(step_tree(step, value.shape), value.dtype)


@functools.cache
def code_of(statement: Statement, flags: tuple[bool, ...]) -> CodeType:
    """Return a statement without the calls of recorded functions, for formulas.run."""
    return compiled(without_calls(statement, flags))


def places_in(part: Array, whole: Array) -> Array | None:
    """Return the place in `whole`, in C order, of each element of a view of it.

    The result has the shape of `part`. It is None if part is not such a view.
    """
    root = whole if whole.base is None else whole.base
    if part.base is not root and part.base is not whole and part is not whole:
        return None
    if not (isinstance(root, np.ndarray) and root.flags.c_contiguous and part.dtype == root.dtype):
        return None
    start = root.__array_interface__["data"][0]

    def places(view: Array) -> Array:
        offset = view.__array_interface__["data"][0] - start
        grids = np.ix_(*(np.arange(n) * s for n, s in zip(view.shape, view.strides, strict=True)))
        return np.asarray((offset + sum(grids)) // root.itemsize).reshape(view.shape)

    in_whole = np.full(root.size, -1)
    in_whole[places(whole)] = np.arange(whole.size).reshape(whole.shape)
    found = in_whole[places(part)]
    return None if (found < 0).any() else found


def step_tree(step: int, shape: tuple[int, ...]) -> Tree:
    """Return the formula "the array of this step"."""
    return {"op": "step", "step": step, "shape": shape}


def key_of(x: Array) -> Key:
    """Return what identifies the values of an array."""
    return x.dtype.str, x.shape, x.tobytes()
