"""Patch dropout: each training step sees only some patches of each image (Liu et al., 2022).

The weights of a transformer do not depend on the number of tokens, and every token carries
its position with it, so the model can be trained on any subset of the patches. With half of
them a step costs about half, and no image looks the same twice. Evaluation uses all
patches. Nothing is rescaled, since attention and pooling are averages already.

The patches that take part are an argument of the model, `keep` (B, m): their indices,
drawn for each image by the training step (engine/workers.py). Patches that are left out are
never embedded.
"""

import numpy as np

from ..backend.arrays import Array, get_xp
from ..backend.ops import on_gpu


def sample_patches(rng: np.random.Generator, B: int, n: int, m: int, like: Array) -> Array:
    """Draw m of the n patches of each of B images  ->  keep (B, m), in ascending order.

    keep is on the device of `like`.
    """
    bits = rng.integers(0, 2**64, (B, n), np.uint64)
    return choose_patches(get_xp(like).asarray(bits), m)


@on_gpu
def choose_patches(bits: Array, m: int) -> Array:
    """bits (B, n), random uint64  ->  (B, m): the places of the m smallest numbers of a row.

    Sorting by random numbers is shuffling, so every subset is equally likely.
    """
    xp = get_xp(bits)
    order = xp.argsort(bits, axis=1, kind="stable")
    return xp.sort(order[:, :m], axis=1)


def patches_kept(p: float, n: int) -> int:
    """Return how many of n patches remain if a fraction p is dropped: at least one."""
    return max(1, round((1 - p) * n))
