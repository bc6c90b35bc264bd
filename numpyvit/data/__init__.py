"""Data sets, augmentation, batches."""

from .augment import Augment, affine, compose, flip, shift
from .batches import batches, steps_per_epoch
from .dataset import Dataset, hold_out, normalise
from .files import cifar10, digits, fashion_mnist, load, mnist, names

__all__ = ["Augment", "Dataset", "affine", "batches", "cifar10", "compose", "digits", "fashion_mnist", "flip", "hold_out",
           "load", "mnist", "names", "normalise", "shift", "steps_per_epoch"]
