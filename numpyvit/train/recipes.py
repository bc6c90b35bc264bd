"""The recipes that have a name, with what is known about each.

They were chosen on held-out parts of the training sets, with one exception: the length
of cifar10's was chosen by the time that it takes, after the test curves of longer runs
had been seen. Times include the evaluation after each epoch and were measured on two
cores of a shared server (AMD EPYC with AVX-512); benchmarks/logs has the logs of these
runs, and benchmarks/INGREDIENTS.md measures what each ingredient of the CIFAR recipes
gives.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from .recipe import OPTIMIZERS, Recipe, augmentation, mixing

__all__ = ["OPTIMIZERS", "Entry", "Recipe", "augmentation", "catalogue", "mixing", "recipes"]


@dataclass(frozen=True)
class Entry:
    """A recipe and its description, which decides nothing and is stored with no run.

    data: the data set that the recipe was made for. accuracy and time: of the test set,
    and of a whole run, as measured; both are empty if it was not measured. about: what
    the recipe is made of.
    """

    recipe: Recipe
    data: str
    about: str
    accuracy: str = ""
    time: str = ""

    @property
    def summary(self) -> str:
        """One line: the data set, the test accuracy and the time."""
        if not self.accuracy:
            return f"{self.data}: not measured"
        return f"{self.data}: {self.accuracy} on the test set in {self.time}"


MUON: dict[str, Any] = {
    "optimizer": "muon",
    "lr": 5e-3,
    "beta2": 0.98,
    "average": 0.998,
    "smoothing": 0.05,
}
CIFAR = Recipe(
    "cifar10",
    epochs=26,
    weight_decay=0.2,
    translate=4,
    flip=True,
    patch_dropout=0.75,
    full_patches=0.15,
    **MUON,
)

catalogue: dict[str, Entry] = {
    "digits": Entry(
        Recipe("digits", epochs=80, lr=3e-3, warmup=5, rotate=10, scale=0.1, translate=0.5),
        data="digits",
        accuracy="99.72 %, 99.72 % and 99.16 % (seeds 0, 1 and 2)",
        time="12 to 14 seconds each",
        about="""
        A model of 136,138 weights for the 1,797 handwritten digits of 8x8 pixels that ship with
        the package. Patches of 4x4 and AdamW; the digits are rotated, resized and translated by
        up to half a pixel.
        """,
    ),
    "mnist": Entry(
        Recipe("mnist", epochs=8, weight_decay=0.1, rotate=10, scale=0.1, translate=1, **MUON),
        data="mnist",
        accuracy="99.17 %, 99.39 % and 99.18 % (seeds 0, 1 and 2)",
        time="81 to 89 seconds each",
        about="""
        A model of 105,546 weights. Patches of 7x7 (17 tokens with the class token) make a step
        cheap, and with Muon few steps are enough. The digits are rotated by up to 10 degrees,
        resized by up to a tenth and translated by up to a pixel. examples/train_mnist.py shows
        this training as a loop to read.
        """,
    ),
    "mnist-30k": Entry(
        Recipe(
            "mnist-30k",
            epochs=30,
            weight_decay=0.1,
            rotate=10,
            scale=0.1,
            translate=1,
            patch_dropout=0.5,
            full_patches=0.25,
            **MUON,
        ),
        data="mnist",
        accuracy="99.35 %, 99.40 % and 99.24 % (seeds 0, 1 and 2)",
        time="430 to 439 seconds each",
        about="""
        A model of 29,690 weights: width 32, three blocks, patches of 4x4, rotary positions.
        Half of the patches are left out until the last quarter of the run, which makes an epoch
        faster. The model of seed 0 is the one that ships with the package, for
        `numpyvit predict digit.png`.
        """,
    ),
    "mnist-best": Entry(
        Recipe(
            "mnist-best",
            epochs=25,
            weight_decay=0.1,
            rotate=10,
            scale=0.1,
            shear=0.1,
            translate=2,
            **MUON,
        ),
        data="mnist",
        accuracy="99.55 %",
        time="18 minutes",
        about="""
        A model of 138,890 weights: patches of 4x4, the mean over the tokens instead of a class
        token, Muon, and 25 epochs of digits that are rotated, resized, sheared and translated.
        """,
    ),
    "fashion-mnist": Entry(
        Recipe(
            "fashion-mnist",
            epochs=28,
            weight_decay=0.2,
            translate=1,
            flip=True,
            patch_dropout=0.5,
            full_patches=0.2,
            **MUON,
        ),
        data="fashion-mnist",
        accuracy="93.46 %",
        time="22 minutes",
        about="""
        A model of 378,634 weights: width 96, five blocks, patches of 4x4 that also see the pixel
        next to them on each side, rotary positions, the mean over the tokens. Clothes differ in
        small details, so half of the patches are left out until near the end, and not three
        quarters as for CIFAR. Images are mirrored and translated by up to a pixel; stronger
        changes did worse on held-out images.
        """,
    ),
    "cifar10": Entry(
        CIFAR,
        data="cifar10",
        accuracy="85.09 %",
        time="29 minutes",
        about="""
        A model of 802,698 weights, without convolutions: width 128, six blocks, patches of 4x4,
        rotary positions, the mean over the tokens. Three quarters of the patches are left out
        until the last four epochs, so that an epoch takes a third of the time, and Muon gains
        more from each step than AdamW. Images are mirrored and translated by up to four pixels.
        cifar10-best trains the same model for longer.
        """,
    ),
    "cifar10-150k": Entry(
        dataclasses.replace(CIFAR, preset="cifar10-150k", epochs=150),
        data="cifar10",
        accuracy="84.30 %",
        time="82 minutes, the first 69 of them with one worker",
        about="""
        A model of 146,058 weights: width 64, four blocks, patches of 4x4, rotary positions, the
        mean over the tokens. Such a small model has to be trained for long: 150 epochs. Three
        quarters of the patches are left out in all but the last 22 of them.
        """,
    ),
    "cifar10-best": Entry(
        dataclasses.replace(CIFAR, epochs=45, full_patches=0.25),
        data="cifar10",
        accuracy="86.38 %",
        time="65 minutes",
        about="""
        The model of cifar10 with 802,698 weights, trained for 45 epochs. Three quarters of the
        patches are left out until the last quarter of the run, so that an epoch takes a third
        of the time, and Muon gains more from each step than AdamW. Rotary positions tell
        attention how far apart two patches are, which it would otherwise have to learn.
        """,
    ),
    "cifar100": Entry(
        CIFAR,
        data="cifar100",
        about="The recipe of cifar10, for CIFAR-100.",
    ),
    "own": Entry(
        Recipe(
            "photos",
            epochs=40,
            batch_size=64,
            lr=1e-3,
            warmup=4,
            rotate=5,
            scale=0.1,
            translate=2,
        ),
        data="your own images",
        about="""
        The recipe for your own images, which --data names: a folder or an .npz file. It is the
        default for them, so --recipe own need not be given. A model of width 128 and six blocks,
        whose patches are chosen so that each image has about 64 of them, and AdamW; the images
        are rotated, resized and translated a little. Add --flip if left and right do not matter.
        With a few hundred images the 40 epochs take about a minute, and with more images longer
        in proportion: give fewer --epochs then.
        """,
    ),
}

recipes: dict[str, Recipe] = {name: entry.recipe for name, entry in catalogue.items()}
