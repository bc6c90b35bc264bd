"""What each ingredient of the CIFAR recipes gives: the recipe as it is, and with one thing changed at a time.

    python benchmarks/ingredients.py --data-dir DIR [--seeds N] [--only NAME ...] [--jobs N]

Each line is the model of cifar10-150k after EPOCHS epochs on 20,000 training images of CIFAR-10, judged by 5,000 others of
the training set that it never saw: the test set has no part in it. Mean and deviation over the seeds, and the difference to
the recipe. Runs of this length are what a recipe can be tuned with; things that only pay in long ones will not show.
"""

import argparse
import dataclasses
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import numpyvit as nv
from numpyvit.train.folder import read_metrics
from numpyvit.train.recipes import TrainConfig
from numpyvit.train.run import Run

EPOCHS, IMAGES = 10, 20_000
Changes = tuple[dict[str, Any], dict[str, Any]]  # of the model, of the recipe

# Without patch dropout an epoch takes twice as long and more: "as long a run" has fewer epochs.
CHANGES: dict[str, Changes] = {
    "the recipe": ({}, {}),
    "AdamW, lr 2e-3, in place of Muon": ({}, {"optimizer": "adamw", "lr": 2e-3}),
    "AdamW, lr 2e-3, weight decay 0.05": (
        {},
        {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.05},
    ),
    "learned positions in place of rotary": ({"positions": "learned"}, {}),
    "no positions": ({"positions": "none"}, {}),
    "a class token in place of the mean": ({"pooling": "cls"}, {}),
    "patches that overlap, by 1 pixel": ({"patch_overlap": 1}, {}),
    "patches that overlap, by 2 pixels": ({"patch_overlap": 2}, {}),
    "no patch dropout": ({"patch_dropout": 0.0}, {}),
    "no patch dropout, as long a run": ({"patch_dropout": 0.0}, {"epochs": 5}),
    "half of the patches in place of a quarter": ({"patch_dropout": 0.5}, {}),
    "quarters of the patches to the end": ({}, {"whole": 0.0}),
    "weight decay 0.05 in place of 0.2": ({}, {"weight_decay": 0.05}),
    "no average of the weights": ({}, {"average": 0.0}),
    "no label smoothing": ({}, {"smoothing": 0.0}),
    "no crops, no flips": ({}, {"shift": 0.0, "flip": False}),
    "RandAugment besides, 1 operation": ({}, {"randaugment": 1, "magnitude": 5.0}),
    "erasing besides, 0.25": ({}, {"erase": 0.25}),
    "mixup besides, 0.2": ({}, {"mixup": 0.2}),
    "cutmix besides, 1": ({}, {"cutmix": 1.0}),
}


def measure(name: str, seed: int, data_dir: str | None) -> tuple[float, float]:
    """(accuracy on the held-out images, seconds) of one run, on one core."""
    train, _ = nv.data.load("cifar10", data_dir)
    train, held = nv.data.hold_out(train, 0.1, seed=0)
    train = train.take(np.random.default_rng(0).permutation(len(train))[:IMAGES])
    model, recipe = CHANGES[name]
    config = TrainConfig.make(
        "cifar10", train, recipe="cifar10-150k", seed=seed, **{"epochs": EPOCHS, **recipe}
    )
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **model))
    with tempfile.TemporaryDirectory() as folder:
        Run.start(config, Path(folder) / "run", train, held).train(workers=1, say=lambda line: None)
        last = read_metrics(Path(folder) / "run")[-1]
    return last["test_accuracy"], last["seconds"]  # of `held`, which stands in the test set's place


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    args = parser.parse_args()
    print(f"{'':44}{'accuracy':>9}{'+-':>7}{'difference':>12}{'seconds':>9}")
    with ProcessPoolExecutor(args.jobs) as pool:
        names = dict.fromkeys(
            ["the recipe", *args.only]
        )  # that first: the others are compared to it
        runs = {
            name: [pool.submit(measure, name, seed, args.data_dir) for seed in range(args.seeds)]
            for name in names
        }
        base = None
        for name, futures in runs.items():
            found = [f.result() for f in futures]
            accuracy = [100 * a for a, _ in found]
            mean, spread = (
                statistics.mean(accuracy),
                statistics.stdev(accuracy) if len(accuracy) > 1 else float("nan"),
            )
            base = mean if base is None else base
            seconds = statistics.mean(s for _, s in found)
            print(
                f"{name:44}{mean:8.2f}%{spread:7.2f}{mean - base:+12.2f}{seconds:9.0f}", flush=True
            )


if __name__ == "__main__":
    main()
