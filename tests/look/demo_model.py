"""A small classifier, and a session with it, for the tests of the demo."""

import numpy as np

from numpyvit import Classifier, ViT, ViTConfig
from numpyvit.data import make_dataset
from numpyvit.gradcheck import noisy
from numpyvit.look.session import Example, Session

CONFIG = ViTConfig((8, 12), 4, 1, 3, width=8, depth=2, heads=2, mlp_width=12, positions="rotary")
SHAPE = (8, 12, 1)


def classifier():
    """Return a classifier of 8x12 images in three classes, with random weights."""
    model = ViT(CONFIG)
    params = noisy(model, 0).astype(np.float32)
    mean, std = np.array([0.3], np.float32), np.array([0.4], np.float32)
    return Classifier(model, params, mean, std, ("a", "b", "c"))


def images(n):
    """Return n random images, uint8."""
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE), np.uint8)


def session():
    """Return a session with two examples and 30 test images."""
    test = make_dataset("test", images(30), np.arange(30) % 3)
    examples = [Example("one", images(2)[0], 2, "as it is"), Example("two", images(2)[1])]
    return Session(classifier(), examples, test)
