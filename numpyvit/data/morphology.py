"""Images as sets of pixels: running extremes, closings and connected components."""

from typing import NamedTuple

import numpy as np

from ..backend.arrays import Array


def closing(page: Array, side: int) -> Array:
    """Return the closing of page (H, W) with a square, beyond the border as at it."""
    wide = np.pad(page, side - 1, mode="edge")
    return running(np.minimum, running(np.maximum, wide, side), side)


def running(function: np.ufunc, image: Array, side: int) -> Array:
    """Return the maximum (minimum) in every square of image (H, W).

    The result is smaller by side - 1. The widths 1, 2, 4, ... are computed from each
    other, and the last one from two that overlap.
    """
    for _ in range(2):
        n = len(image) - side + 1
        width = 1
        while 2 * width <= side:
            image = function(image[:-width], image[width:])
            width *= 2
        image = function(image[:n], image[len(image) - n :]).T
    return image


def grown(mask: Array, by: int) -> Array:
    """Return which pixels are at most `by` rows and columns from one of mask (H, W)."""
    return running(np.maximum, np.pad(mask, by), 2 * by + 1)


class Components(NamedTuple):
    """The connected components of a mask (H, W): arrays with one value for each.

    labels: (H, W) int, -1 outside of the mask. The ends of the boxes are exclusive.
    edges: the number of pixels that have a neighbour outside.
    """

    labels: Array
    area: Array
    edges: Array
    top: Array
    bottom: Array
    left: Array
    right: Array

    @property
    def extent(self) -> Array:
        """The longer sides of the boxes."""
        return np.maximum(self.bottom - self.top, self.right - self.left)

    @property
    def touches(self) -> Array:
        """Which components touch the border of the image."""
        H, W = self.labels.shape
        at_start = (self.top == 0) | (self.left == 0)
        return at_start | (self.bottom == H) | (self.right == W)

    def largest(self, values: Array) -> Array:
        """Return the largest of the values (H, W) in each component."""
        result = np.zeros(len(self.area), values.dtype)
        mask = self.labels >= 0
        np.maximum.at(result, self.labels[mask], values[mask])
        return result

    def sums(self, values: Array) -> Array:
        """Return the sum of the values (H, W) in each component."""
        mask = self.labels >= 0
        return np.bincount(self.labels[mask], values[mask], len(self.area))


def components(mask: Array) -> Components:
    """Return the connected components of mask (H, W), diagonal neighbours included.

    Every pixel begins with its own number as its label. In turn, each label is replaced
    by the smallest in its neighbourhood, for all pixels that have it, and by the label
    of the pixel that it names, until nothing changes.
    """
    H, W = mask.shape
    where = np.flatnonzero(mask)
    none = len(where)
    image = np.full(H * W, none, np.int32)
    labels = np.arange(none, dtype=np.int32)
    while True:
        image[where] = labels
        around = np.pad(image.reshape(H, W), 1, constant_values=none)
        least = running(np.minimum, around, 3).reshape(-1)[where]
        if np.array_equal(least, labels):
            break
        np.minimum.at(labels, labels.copy(), least)
        while not np.array_equal(shorter := labels[labels], labels):
            labels = shorter
    _, index = np.unique(labels, return_inverse=True)
    image[:] = -1
    image[where] = index
    numbers = image.reshape(H, W)
    n = int(index.max(initial=-1)) + 1
    y, x = np.divmod(where, W)
    top, left = np.full((2, n), H * W)
    bottom, right = np.zeros((2, n), int)
    np.minimum.at(top, index, y)
    np.minimum.at(left, index, x)
    np.maximum.at(bottom, index, y + 1)
    np.maximum.at(right, index, x + 1)
    area = np.bincount(index, minlength=n)
    inner = running(np.minimum, np.pad(mask, 1, mode="edge"), 3)
    edges = np.bincount(numbers[mask & ~inner], minlength=n)
    return Components(numbers, area, np.maximum(edges, 1), top, bottom, left, right)
