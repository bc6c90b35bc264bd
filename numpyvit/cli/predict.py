"""numpyvit predict: classify image files with a trained model."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, say
from .inputs import model_file
from .options import add_command, text

if TYPE_CHECKING:
    from ..classifier import Classifier

CHUNK = 100  # images in memory at a time


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit predict`."""
    p = add_command(
        commands,
        "predict",
        "classify image files",
        "runs/RUN photo.jpg scan.png",
        usage="numpyvit predict [-h] [RUN] IMAGE...",
    )
    p.add_argument(
        "files",
        nargs="+",
        type=text,
        metavar="[RUN] IMAGE...",
        help="IMAGE: PNG, JPEG, TIFF, WebP, GIF and other files of any size. RUN: the folder of a "
        "run, or a model.npz; without it, the model of handwritten digits that ships with the "
        "package is used. The exit code is 1 if some of the images cannot be read, and 2 if none "
        "can",
    )


def run(args: argparse.Namespace) -> int:
    """Print each image's three likeliest classes and how it was prepared.

    Images that cannot be read are named at the end. Returns 0 if there were none, 2 if there
    were no others, and 1 otherwise.
    """
    from ..classifier import Classifier

    first = Path(args.files[0])
    model = first if first.is_dir() or first.suffix == ".npz" else None
    paths = args.files[1:] if model else args.files
    has_run = (first / "config.json").exists() or (first / "model.npz").exists()
    if first.is_dir() and not has_run:
        raise UserError(
            f"{first} holds no run: to classify its images, name them one by one ({first}/*), "
            "after the folder of a run"
        )
    if not first.exists() and not first.suffix:
        raise UserError(
            f"{first} does not exist: the first argument is the folder of a run, a model.npz or an "
            "image"
        )
    if not paths:
        raise UserError(f"predict needs images after {model}: numpyvit predict {model} IMAGE...")
    classifier = Classifier.load(model_file(model)) if model else Classifier.mnist()
    problems: list[str] = []
    for start in range(0, len(paths), CHUNK):
        predict(classifier, paths[start : start + CHUNK], problems)
    if not model and len(problems) < len(paths):
        say("classified by the packaged model of handwritten digits", sys.stderr)
    for problem in dict.fromkeys(problems):
        say(f"numpyvit: error: {problem}", sys.stderr)
    if not problems:
        return 0
    return 1 if len(problems) < len(paths) else 2


def predict(classifier: "Classifier", paths: list[str], problems: list[str]) -> None:
    """Print a line for each image that can be read; append to `problems` why others cannot."""
    import numpy as np

    read = []
    for path in paths:
        try:
            read.append((path, *classifier.read_image(path)))
        except UserError as error:
            problems.append(str(error))
    if not read:
        return
    probabilities = classifier.predict(np.stack([pixels for _, pixels, _ in read]))
    for (path, _, remark), p in zip(read, probabilities, strict=True):
        likeliest = p.argsort()[::-1][:3]
        best = ", ".join(f"{classifier.classes[k]} ({p[k]:.1%})" for k in likeliest)
        say(f"{path}: {best}   [{remark}]")
