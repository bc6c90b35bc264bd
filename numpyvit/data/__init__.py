"""Data sets, their readers, augmentation and batches."""

from .augment import Augment, affine, compose, erase, flip, shift
from .batches import batches, steps_per_epoch
from .dataset import Dataset, hold_out, make_dataset, normalise
from .image import read_picture
from .image_folder import folder, npz
from .loading import load
from .mix import Mix, cutmix, mixup, one_of
from .rand_augment import randaugment
from .readers import cifar10, cifar100, digits, download, fashion_mnist, mnist, names

__all__ = [
    "Augment",
    "Dataset",
    "Mix",
    "affine",
    "batches",
    "cifar10",
    "cifar100",
    "compose",
    "cutmix",
    "digits",
    "download",
    "erase",
    "fashion_mnist",
    "flip",
    "folder",
    "hold_out",
    "load",
    "make_dataset",
    "mixup",
    "mnist",
    "names",
    "normalise",
    "npz",
    "one_of",
    "randaugment",
    "read_picture",
    "shift",
    "steps_per_epoch",
]
