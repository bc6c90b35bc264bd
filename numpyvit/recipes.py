"""How each data set is trained unless the command line says otherwise: model preset, epochs, rates, augmentation.

Chosen on held-out parts of the training sets, never on a test set.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """lr is AdamW's highest rate; warmup in epochs; clip: the gradients' largest norm; smoothing of the labels; up to how
    many degrees, what share of their size and how many pixels images are turned, scaled and shifted; flip: half of them."""

    preset: str
    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 1.0
    clip: float = 1.0
    smoothing: float = 0.0
    turn: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    flip: bool = False


recipes: dict[str, Recipe] = {
    "digits": Recipe("digits", epochs=80, batch_size=64, warmup=5, turn=10, scale=0.1, shift=0.5),
    "mnist": Recipe("mnist", epochs=8, shift=1),
    "fashion-mnist": Recipe("mnist", epochs=12, shift=1, flip=True),
    "cifar10": Recipe("cifar10", epochs=8, shift=4, flip=True),
}
