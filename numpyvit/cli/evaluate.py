"""numpyvit evaluate: the accuracy of a trained model on its test set, or on other images."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, say
from .inputs import check_data_dir, data_dir_of, load_data, model_file
from .options import add_command, add_data_dir, add_device, add_workers, path, text

if TYPE_CHECKING:
    from ..classifier import Classifier
    from ..data import Dataset


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit evaluate`."""
    p = add_command(
        commands,
        "evaluate",
        "measure a trained model on its test set, or on other images",
        "runs/RUN --data MORE_PHOTOS",
    )
    p.add_argument(
        "run",
        type=path,
        metavar="RUN",
        help="the folder of a run; with --data, a model.npz will do",
    )
    p.add_argument(
        "--data",
        type=text,
        metavar="NAME",
        help="other images of the same classes, as for train: their test set, or all of them if "
        "they have none; or the images of the run, if they have been moved",
    )
    add_data_dir(p)
    add_workers(p)
    add_device(p)


def run(args: argparse.Namespace) -> None:
    """Print the accuracy of each class and of all images."""
    from ..classifier import Classifier
    from ..engine.workers import Workers
    from ..losses import cross_entropy
    from ..train.folder import read_config

    has_run = not args.run.is_file()
    if not has_run and not args.data:
        raise UserError(
            f"{args.run} does not know its images: name some with --data, or give the folder of a "
            "run instead"
        )
    if has_run:
        read_config(args.run)  # say that it is no run before its model is missed
    classifier = Classifier.load(model_file(args.run))
    if args.data:
        test, what = other_images(args, classifier, has_run)
    else:
        test, what = own_test_set(args.run, args, classifier)
    test = dataclasses.replace(test, mean=classifier.mean, std=classifier.std)
    with Workers(classifier.model, workers=args.workers) as workers:
        logits = workers.predict(classifier.params.to(args.device), test)
    correct = logits.argmax(-1) == test.labels
    say(what)
    say(f"{'class':16}{'images':>8}{'accuracy':>10}")
    for k, label in enumerate(test.classes):
        of_class = correct[test.labels == k]
        accuracy = f"{of_class.mean():.2%}" if len(of_class) else "-"
        say(f"{label:16}{len(of_class):8,}{accuracy:>10}")
    loss, _ = cross_entropy(logits, test.labels)
    say(f"{'all':16}{len(test):8,}{correct.mean():10.2%}   loss {float(loss):.4f}")


def own_test_set(
    run: Path, args: argparse.Namespace, classifier: "Classifier"
) -> "tuple[Dataset, str]":
    """Return the test set of the run, and what it is.

    Raises UserError if the run was trained on other images than those found now.
    """
    from ..train.folder import data_md5, read_config

    config, md5, _ = read_config(run)
    train, test = load_data(run, args, bar=True)
    if data_md5(train, test) != md5:
        raise UserError(
            f"{run} was trained on another version of {config.data} than the one found now: "
            "images that it was trained on may be in the test set; restore the data, train again, "
            "or evaluate it on other images with --data"
        )
    if classifier.classes != test.classes:
        raise UserError(
            f"{run}: the classes of its model.npz are not those of {test.name} in its "
            "config.json: the two files are from different runs"
        )
    return test, f"the test set of {test.name}"


def other_images(
    args: argparse.Namespace, classifier: "Classifier", has_run: bool
) -> "tuple[Dataset, str]":
    """Return the images that --data names, fitted to the model, and what they are.

    That is their test set, or all of them if they have none. If they are the images of the
    run, it is the part that was held out from its training.
    """
    from .. import data
    from ..data.loading import for_model, is_path

    size = classifier.config.image
    check_data_dir(args, args.data)
    data_dir = data_dir_of(args.run, args, args.data) if has_run else args.data_dir
    train, test = data.load(args.data, data_dir, size, None, bar=True)
    name = args.data
    what = f"all {len(test):,} images of {name}" if test is train else f"the test set of {name}"
    held_out = test_set_within(args, train, test) if has_run else None
    if held_out:
        test, what = held_out, f"the test set of {name}"
    elif is_path(name):
        say(
            "if the model was trained on some of these images, the accuracy is too high", sys.stderr
        )
    return for_model(test, size, classifier.mean, classifier.std, classifier.classes), what


def test_set_within(
    args: argparse.Namespace, train: "Dataset", test: "Dataset"
) -> "Dataset | None":
    """Return the test set of the run if these are its images, otherwise None."""
    from ..data import hold_out
    from ..train.folder import data_md5, read_config

    config, md5, _ = read_config(args.run)
    if test is train:
        try:
            train, test = hold_out(train, config.test)
        except UserError:  # too few to be split
            return None
    return test if data_md5(train, test) == md5 else None
