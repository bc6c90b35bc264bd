"""Rotary positions (Su et al., 2021, "RoFormer", section 3.2): queries and keys are turned by angles that grow with the
place of their token. Scores then know how far apart two tokens are, and in which direction, wherever both of them lie.

Two features (a, b) are read as one complex number, a + ib. A dot product of real features is the real part of a complex one,
sum_c Re(q_c conj(k_c)). Turn the query of a token at place m and the key of one at place n:

    Re(q e^(i m f) conj(k e^(i n f))) = Re(q conj(k) e^(i (m - n) f))

and nothing but m - n is left. Each pair of features has a frequency f of its own. In an image a place is a row and a column:
one half of the pairs turns with the row, the other with the column ("axial": Heo et al., 2024, "Rotary Position Embedding
for Vision Transformer", section 3.2). Nothing of it is learned.
"""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from ..backend.arrays import Array, fixed, get_xp

BASE = 100.0  # frequencies go from 1 down towards 1 / BASE (Heo et al.: 100, where language models take 10,000)


@lru_cache(maxsize=8)
def turns(
    grid: tuple[int, int],
    width: int,
    first: int = 0,
    xp: ModuleType = np,
    dtype: Any = np.complex128,
) -> Array:
    """grid: (rows, columns) of patches, width: E of a head, a multiple of 4  ->  e^(i angle), (N, E/2), an array of xp's.

    The `first` tokens before the patches, the class token, have no place and are not turned.
    """
    f = BASE ** -(np.arange(width // 4) / (width // 4))  # (E/4,)
    row, column = np.indices(grid).reshape(2, -1, 1)  # (patches, 1) each
    angle = np.concatenate([row * f, column * f], axis=1)  # (patches, E/2)
    return fixed(np.exp(1j * np.concatenate([np.zeros((first, width // 2)), angle])), xp, dtype)


def rotary_forward(x: Array, turn: Array) -> tuple[Array, Array]:
    """x (B, N, ..., E), turn (N, E/2) or, for each image, (B, N, E/2)  ->  y (B, N, ..., E), cache.

    In real numbers, y = (a cos - b sin, a sin + b cos), for each pair (a, b) of x.
    """
    xp, size = get_xp(x), max(x.itemsize, 4)  # complex numbers of x's precision: two of its size
    axes = tuple(range(turn.ndim - 1, turn.ndim + x.ndim - 4))  # turn has no "..."
    y = xp.ascontiguousarray(x, f"f{size}").view(f"c{2 * size}")  # a and b side by side
    y = y * xp.expand_dims(xp.asarray(turn, y.dtype), axes)
    return y.view(f"f{size}").astype(x.dtype, copy=False), turn


def rotary_backward(dy: Array, cache: Array) -> Array:
    """dy (B, N, ..., E)  ->  dx: turning is orthogonal, so its transpose is to turn back."""
    return rotary_forward(dy, cache.conj())[0]
