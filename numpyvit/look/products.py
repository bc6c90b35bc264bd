"""The matrix products of a model, recorded while it runs.

The arrays of a run are replaced by a subclass that tells when it is multiplied, so nothing
about the model has to be known here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.arrays import Array
from ..config import ViTConfig
from ..params import Buffer
from ..vit import ViT
from ..watch import Call, watch


@dataclass(frozen=True)
class Product:
    """One matrix product a @ b that a layer computed.

    layer: its name; method: "forward" or "backward"; a, b: the shapes of the factors;
    a_transposed, b_transposed: whether the factor lies transposed in memory.
    """

    layer: str
    method: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    a_transposed: bool
    b_transposed: bool

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        *lead, m, k = self.a
        return 2 * int(np.prod(lead, dtype=np.int64)) * m * k * self.b[-1]

    def replay(self, dtype: Any = np.float32) -> Callable[[], object]:
        """Return a function that computes such a product, into memory that is there already."""
        a = filled(self.a, self.a_transposed, dtype)
        b = filled(self.b, self.b_transposed, dtype)
        out = np.empty((*self.a[:-1], self.b[-1]), dtype)
        return lambda: np.matmul(a, b, out=out)


def filled(shape: tuple[int, ...], is_transposed: bool, dtype: Any) -> Array:
    """Return ones of this shape, with the last two axes swapped in memory if asked for."""
    if not is_transposed:
        return np.ones(shape, dtype)
    return np.ones((*shape[:-2], shape[-1], shape[-2]), dtype).swapaxes(-1, -2)


class RecordingArray(np.ndarray):
    """An array that reports each product of matrices that it takes part in.

    `report` is set for the time of a recording, by `record_products`.
    """

    report: Callable[[Array, Array], None] | None = None

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> Any:
        plain = [as_plain(x) for x in inputs]
        if ufunc is np.matmul and min(x.ndim for x in plain) >= 2 and RecordingArray.report:
            RecordingArray.report(plain[0], plain[1])
        if out is not None:
            options["out"] = tuple(as_plain(x) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            return out[0]
        return result.view(RecordingArray) if isinstance(result, np.ndarray) else result


def as_plain(x: Any) -> Any:
    """Return a RecordingArray as an ordinary array; anything else as it is."""
    return x.view(np.ndarray) if isinstance(x, RecordingArray) else x


def record_products(config: ViTConfig, B: int, backward: bool = True) -> list[Product]:
    """Run a model on B images and return its matrix products, in order.

    The model takes no shortcut in its last block. Sums that are computed as products with a
    vector of ones do not count. Weights and images are zeros: their values do not matter.
    """
    model = ViT(config, shortcuts=False)
    size = sum(p.size for p in model.params.values())
    params = Buffer(model.params, np.zeros(size, np.float32).view(RecordingArray))
    images = np.zeros((B, *config.image, config.channels), np.float32).view(RecordingArray)
    found: list[Product] = []
    running: list[Call] = []

    def hook(call: Call) -> Any:
        running.append(call)
        result = call()
        running.pop()
        return result

    def report(a: Array, b: Array) -> None:
        layer, method = running[-1].name, running[-1].method
        found.append(Product(layer, method, a.shape, b.shape, is_transposed(a), is_transposed(b)))

    with watch(model, hook):
        RecordingArray.report = report
        try:
            logits, cache = model.forward(params, images, need_cache=backward)
            if backward:
                grads = Buffer(model.params, np.zeros(size, np.float32))
                model.backward(logits, cache, grads)
        finally:
            RecordingArray.report = None
    return found


def is_transposed(x: Array) -> bool:
    """Return whether the elements of a column, not those of a row, are adjacent in memory."""
    return x.strides[-1] != x.itemsize and x.strides[-2] == x.itemsize
