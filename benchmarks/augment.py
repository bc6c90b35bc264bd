"""Measure how many images per second each augmentation makes, on one core.

    python benchmarks/augment.py              (about 15 seconds)

The images are batches of 128 random images of 32x32x3. Each line is the best of ROUNDS rounds,
because the machine may be busy with something else in the others. The last two lines are
batches as training gets them: selected, augmented, mixed and normalised.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from numpyvit import data

BATCH = 128
ROUNDS = 5
CROP_AND_FLIP = data.compose(data.flip(), data.shift(4))
EVERYTHING = data.compose(CROP_AND_FLIP, data.randaugment(2, 9), data.erase(0.25))
AUGMENTATIONS = {
    "flip": data.flip(),
    "translate (pad and crop)": data.shift(4),
    "crop and flip": CROP_AND_FLIP,
    "rotate, scale, translate, shear": data.affine(10, 0.1, 2, 0.1),
    "erase": data.erase(0.25),
    "RandAugment, 2 operations": data.randaugment(2, 9),
    "crop, flip, RandAugment, erase": EVERYTHING,
}
MIXES = {"mixup": data.mixup(0.2), "cutmix": data.cutmix(1.0)}
BATCHES = {
    "batches: crop and flip": (CROP_AND_FLIP, None),
    "batches: everything, and mixed": (EVERYTHING, data.one_of(*MIXES.values())),
}


def images_per_second(call: Callable[[np.random.Generator], object], seconds: float) -> float:
    """Return how many images a second `call` makes, a batch at each call."""
    best = 0.0
    for _ in range(ROUNDS):
        calls = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            call(np.random.default_rng(calls))
            calls += 1
        best = max(best, calls * BATCH / elapsed)
    return best


def next_batch(batches: Iterator[object], rng: np.random.Generator) -> object:
    """Return the next batch; `batches` has its own random numbers, so rng is not used."""
    return next(batches)


def main() -> None:
    """Print a line for each augmentation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="length of a round (default: 0.2)"
    )
    seconds = parser.parse_args().seconds

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    targets = np.eye(10, dtype=np.float32)[np.arange(BATCH) % 10]
    n = 40 * BATCH
    noise = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
    train = data.make_dataset("noise", noise, np.arange(n) % 10)

    def report(name: str, call: Callable[[np.random.Generator], object]) -> None:
        print(f"{name:36}{images_per_second(call, seconds):12,.0f} images/s", flush=True)

    with threadpool_limits(1):
        for name, augment in AUGMENTATIONS.items():
            report(name, partial(augment, images))
        for name, mix in MIXES.items():
            report(name, partial(mix, images, targets))
        for name, (augment, batch_mix) in BATCHES.items():
            batches = data.batches(train, BATCH, 10**6, augment=augment, mix=batch_mix)
            report(name, partial(next_batch, batches))


if __name__ == "__main__":
    main()
