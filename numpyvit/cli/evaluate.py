"""numpyvit evaluate: the accuracy of a trained model on its test set."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..errors import UserError
from .inputs import load_data, model_file
from .options import add_data_dir, add_device, add_workers, path, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit evaluate`."""
    p = commands.add_parser(
        "evaluate", allow_abbrev=False, help="measure a trained model on its test set"
    )
    p.add_argument("run", type=path, metavar="RUN", help="the folder of a run")
    p.add_argument(
        "--data",
        type=text,
        metavar="PATH",
        help="where your own images are now, if they have been moved",
    )
    add_data_dir(p)
    add_workers(p)
    add_device(p)


def run(args: argparse.Namespace) -> None:
    """Print the accuracy of each class and of all test images."""
    from ..classifier import Classifier
    from ..engine.workers import Workers
    from ..losses import cross_entropy
    from ..train.folder import data_md5, read_config

    if args.run.is_file():
        raise UserError(
            f"evaluate needs the folder of a run, which names the data too, not the file {args.run}"
        )
    config, md5, _ = read_config(args.run)
    classifier = Classifier.load(model_file(args.run))
    name = Path(config.data).stem
    train, test = load_data(config, args, bar=True)
    if data_md5(train, test) != md5:
        raise UserError(
            f"{args.run} was trained on another version of {config.data} than the one found now: "
            "images that it was trained on may be in the test set; restore the data, or train again"
        )
    if classifier.classes != test.classes:
        raise UserError(
            f"{args.run}: the classes of its model.npz are not those of {name} in its config.json: "
            "the two files are from different runs"
        )
    test = dataclasses.replace(test, mean=classifier.mean, std=classifier.std)
    with Workers(classifier.model, workers=args.workers) as workers:
        logits = workers.predict(classifier.params.to(args.device), test)
    correct = logits.argmax(-1) == test.labels
    print(f"{'class':16}{'images':>8}{'accuracy':>10}")
    for k, label in enumerate(test.classes):
        of_class = correct[test.labels == k]
        accuracy = f"{of_class.mean():.2%}" if len(of_class) else "-"
        print(f"{label:16}{len(of_class):8,}{accuracy:>10}")
    loss, _ = cross_entropy(logits, test.labels)
    print(f"{'all of ' + name:16}{len(test):8,}{correct.mean():10.2%}   loss {float(loss):.4f}")
