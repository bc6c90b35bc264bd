"""numpyvit: a Vision Transformer in NumPy whose every gradient is written by hand."""

from . import data
from .classifier import Classifier
from .errors import UserError
from .losses import accuracy, cross_entropy
from .muon import Muon
from .optim import SGD, AdamW
from .parallel import Workers
from .params import Buffer, Param, init
from .schedules import schedule, warmup_cosine
from .vit import ViT, ViTConfig, presets

__version__ = "0.2.0"
__all__ = ["SGD", "AdamW", "Buffer", "Classifier", "Muon", "Param", "UserError", "ViT", "ViTConfig", "Workers", "accuracy",
           "cross_entropy", "data", "init", "presets", "schedule", "warmup_cosine"]
