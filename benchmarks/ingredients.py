"""Measure what each ingredient of the CIFAR-10 recipes contributes, by changing one at a time.

    python benchmarks/ingredients.py --data-dir DIR          (95 minutes on two cores)

Each line is the model of cifar10-150k after EPOCHS epochs on IMAGES training images of
CIFAR-10. The accuracy is that on 5,000 other images of the training set, so the test set has
no part in it. A line shows the mean and the standard deviation over the seeds, the difference
to the unchanged recipe, and the seconds of a run on one core. Changes that pay only in longer
runs do not show. The last results are in INGREDIENTS.md.
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
from numpyvit.train.config import TrainConfig
from numpyvit.train.loop import train as train_run
from numpyvit.train.metrics import read_metrics
from numpyvit.train.run import Run

EPOCHS = 10
IMAGES = 20_000

RECIPE = "the recipe"
ADAMW = {"optimizer": "adamw", "lr": 2e-3}
Changes = tuple[dict[str, Any], dict[str, Any]]  # of the model, of the recipe
CHANGES: dict[str, Changes] = {
    RECIPE: ({}, {}),
    "AdamW, lr 2e-3, instead of Muon": ({}, ADAMW),
    "AdamW, lr 2e-3, weight decay 0.05": ({}, {**ADAMW, "weight_decay": 0.05}),
    "learned positions instead of rotary": ({"positions": "learned"}, {}),
    "no positions": ({"positions": "none"}, {}),
    "a class token instead of the mean": ({"pooling": "cls"}, {}),
    "patches that overlap by 1 pixel": ({"patch_overlap": 1}, {}),
    "patches that overlap by 2 pixels": ({"patch_overlap": 2}, {}),
    "no patch dropout": ({}, {"patch_dropout": 0.0}),
    "no patch dropout, 5 epochs": ({}, {"patch_dropout": 0.0, "epochs": 5}),
    "half of the patches instead of a quarter": ({}, {"patch_dropout": 0.5}),
    "a quarter of the patches until the end": ({}, {"full_patches": 0.0}),
    "weight decay 0.05 instead of 0.2": ({}, {"weight_decay": 0.05}),
    "no average of the weights": ({}, {"average": 0.0}),
    "no label smoothing": ({}, {"smoothing": 0.0}),
    "no crops, no flips": ({}, {"translate": 0.0, "flip": False}),
    "with RandAugment, 1 operation": ({}, {"randaugment": 1, "magnitude": 5.0}),
    "with erasing, 0.25": ({}, {"erase": 0.25}),
    "with mixup, 0.2": ({}, {"mixup": 0.2}),
    "with cutmix, 1": ({}, {"cutmix": 1.0}),
}


def measure(name: str, seed: int, data_dir: str | None) -> tuple[float, float]:
    """Train with one of CHANGES on one core; return (accuracy on held-out images, seconds)."""
    train, _ = nv.data.load("cifar10", data_dir)
    train, held_out = nv.data.hold_out(train, 0.1, seed=0)
    train = train.take(np.random.default_rng(0).permutation(len(train))[:IMAGES])
    model_changes, recipe_changes = CHANGES[name]
    recipe_changes = {"epochs": EPOCHS, **recipe_changes}
    config = TrainConfig.make("cifar10", train, recipe="cifar10-150k", seed=seed, **recipe_changes)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **model_changes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        run = Run.start(config, path, train, held_out)  # held_out takes the test set's place
        train_run(run, workers=1, say=lambda line: None)
        last = read_metrics(path)[-1]
    return last["test_accuracy"], last["seconds"]


def main() -> None:
    """Print a line for each change, as soon as all of its seeds are done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", metavar="DIR", help="the folder that contains cifar10/")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs for each line")
    parser.add_argument(
        "--only", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="NAME", help="changes"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    args = parser.parse_args()

    print(f"{'':44}{'accuracy':>9}{'std':>7}{'difference':>12}{'seconds':>9}")
    names = dict.fromkeys([RECIPE, *args.only])  # the recipe first: the others are compared to it
    with ProcessPoolExecutor(args.jobs) as pool:
        runs = {
            name: [pool.submit(measure, name, seed, args.data_dir) for seed in range(args.seeds)]
            for name in names
        }
        recipe_mean = None
        for name, futures in runs.items():
            results = [future.result() for future in futures]
            percent = [100 * accuracy for accuracy, _ in results]
            mean = statistics.mean(percent)
            deviation = statistics.stdev(percent) if len(percent) > 1 else float("nan")
            seconds = statistics.mean(seconds for _, seconds in results)
            if recipe_mean is None:
                recipe_mean = mean
            difference = mean - recipe_mean
            row = f"{name:44}{mean:8.2f}%{deviation:7.2f}{difference:+12.2f}{seconds:9.0f}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
