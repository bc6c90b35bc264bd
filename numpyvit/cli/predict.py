"""numpyvit predict: classify image files with a trained model."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import UserError
from .inputs import model_file
from .options import text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit predict`."""
    p = commands.add_parser(
        "predict",
        allow_abbrev=False,
        help="classify image files",
        usage="numpyvit predict [-h] [RUN] IMAGE...",
    )
    p.add_argument(
        "files",
        nargs="+",
        type=text,
        metavar="FILE",
        help="RUN: the folder of a run, or a model.npz; without it, the model of handwritten "
        "digits that ships with the package is used. IMAGE...: PNG, JPEG, TIFF, WebP, GIF and "
        "other files of any size",
    )


def run(args: argparse.Namespace) -> None:
    """Print each image's three likeliest classes and how it was prepared."""
    import numpy as np

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
    packaged = "" if model else "; by the packaged model of digits"
    images, remarks = zip(*(classifier.read_image(path) for path in paths), strict=True)
    probabilities = classifier.predict(np.stack(images))
    for path, p, remark in zip(paths, probabilities, remarks, strict=True):
        likeliest = p.argsort()[::-1][:3]
        best = ", ".join(f"{classifier.classes[k]} ({p[k]:.1%})" for k in likeliest)
        print(f"{path}: {best}   [{remark}{packaged}]")
