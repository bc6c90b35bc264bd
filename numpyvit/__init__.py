"""numpyvit: a Vision Transformer in NumPy whose every gradient is written by hand.

Train a model on the digits that come with the package, for half a minute:

    import numpyvit as nv

    train, test = nv.data.digits()
    model = nv.ViT(nv.presets["digits"])
    params = model.init(seed=0)
    optimizer = nv.AdamW(params)
    with nv.Workers(model) as workers:
        for images, labels in nv.data.batches(train, batch_size=64, epochs=10):
            loss, grads = workers.loss_and_grad(params, images, labels)
            optimizer.step(params, grads, lr=1e-3, clip=1.0)
        print(nv.accuracy(workers.predict(params, test), test.labels))
    nv.Classifier.of(model, params, train).save("digits.npz")

nv.presets has the named models, nv.ViTConfig describes one of your own, and nv.data has
data sets, your own images included, and augmentations. help(nv.ViTConfig) and so on say
more. The layers are in numpyvit.layers, in an order to read them in; numpyvit.gradcheck
checks gradients, and the command is `numpyvit train`.
"""

from . import data
from .classifier import Classifier
from .engine.workers import Workers
from .errors import UserError
from .losses import accuracy, cross_entropy
from .optim.adamw import AdamW
from .optim.muon import Muon
from .optim.schedules import schedule, warmup_cosine
from .optim.sgd import SGD
from .params import Buffer, Param, init
from .presets import presets
from .version import __version__
from .vit import ViT, ViTConfig

__all__ = [
    "SGD",
    "AdamW",
    "Buffer",
    "Classifier",
    "Muon",
    "Param",
    "UserError",
    "ViT",
    "ViTConfig",
    "Workers",
    "__version__",
    "accuracy",
    "cross_entropy",
    "data",
    "init",
    "presets",
    "schedule",
    "warmup_cosine",
]
