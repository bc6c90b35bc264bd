"""Images for the demo: to start with, and to measure the accuracy on.

Nothing is downloaded.
"""

import dataclasses
from pathlib import Path

import numpy as np

from ..backend.arrays import Array
from ..classifier import Classifier
from ..data import Dataset, load
from ..data.drawing import fit_drawing
from ..data.loading import is_path
from ..data.readers import find
from ..data.registry import DIGITS, KNOWN, data_folder
from ..train.folder import read_config
from .session import Example

LARGEST = 500  # test images


def accuracy_images(classifier: Classifier, run: Path | None) -> Dataset | None:
    """Return at most LARGEST images that a classifier can be tested on, or None.

    For a model of handwritten digits they are the packaged digits, enlarged; for
    another one the test set of its run, if it is on this machine. run: the folder of
    the run. Raises UserError if the run or its data cannot be read.
    """
    if classifier.classes == DIGITS and classifier.box:
        return enlarged_digits(classifier)
    if run is None or not run.is_dir():
        return None
    config, _, _ = read_config(run)
    if not is_here(config.data):
        return None
    _, test = load(config.data, None, classifier.config.image, config.test, lambda line: None)
    fits = test.images.shape[1:] == (*classifier.config.image, classifier.config.channels)
    return sample(test) if fits and test.classes == classifier.classes else None


def some_of_each_class(test: Dataset | None) -> list[Example]:
    """Return one image of each class, of at most ten classes, to start with."""
    if test is None:
        return []
    found = []
    for k, name in enumerate(test.classes[:10]):
        places = np.flatnonzero(test.labels == k)
        if len(places):
            found.append(Example(f"{name} (test image)", test.images[places[0]], k))
    return found


def is_here(name: str) -> bool:
    """Return whether a data set can be read without downloading anything."""
    if name == "digits" or is_path(name):
        return True
    return all(find(name, data_folder(None) / name, file) for file in KNOWN[name].content)


def sample(data: Dataset) -> Dataset:
    """Return at most LARGEST images of a data set, always the same ones."""
    return data.take(np.random.default_rng(0).permutation(len(data))[:LARGEST])


def enlarged_digits(classifier: Classifier) -> Dataset:
    """Return the packaged digits for testing, drawn like the classifier's images."""
    from PIL import Image

    def enlarge(image: Array) -> Array:
        large = Image.fromarray(image[..., 0]).resize((80, 80), Image.Resampling.BICUBIC)
        return fit_drawing(np.asarray(large)[..., None], classifier.config.image, classifier.box)

    test = sample(load("digits")[1])
    return dataclasses.replace(test, images=np.stack([enlarge(image) for image in test.images]))
