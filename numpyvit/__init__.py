"""numpyvit: a Vision Transformer in NumPy whose every gradient is written by hand."""

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
