"""What the commands do."""

import argparse
import dataclasses
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, check_choice
from ..train.recipes import OPTIONS, option

if TYPE_CHECKING:
    from ..data import Dataset
    from ..train.recipes import TrainConfig

FIXED = (
    "recipe",
    "image_size",
    "test",
    "seed",
    "micro_batch",
    "val",
    "patience",
    "out",
)  # by a run's config.json


def train(args: argparse.Namespace) -> None:
    from ..backend.device import module_of
    from ..train.folder import best_row, read_config, read_metrics
    from ..train.run import Run

    module_of(args.device)  # before anything takes long
    say = (lambda line: None) if args.quiet else print
    if args.resume:
        given = [option(name) for name in (*OPTIONS, *FIXED) if getattr(args, name) is not None]
        if given:
            raise UserError(
                f"{given[0]} cannot be given with --resume: the run's config.json decides it"
            )
        folder = args.resume
        run = Run.resume(
            folder,
            *load_as(read_config(folder)[0], args, say, not args.quiet),
            say,
            args.device,
            args.precision,
        )
        say(f"resuming {folder} at step {run.step} of {run.steps}")
    else:
        config, (train_set, test_set) = make_config(args, say)
        name, preset = Path(config.data).stem, config.recipe.preset.replace("/", "-")
        folder = args.out or Path("runs", f"{name}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}")
        if Path(config.data).is_dir() and folder.resolve().is_relative_to(config.data):
            raise UserError(
                f"{folder} lies in the folder of the pictures, where it would be read as one of them: choose "
                "another --out"
            )
        run = Run.start(config, folder, train_set, test_set, args.device, args.precision)
        say(
            f"{name}: {len(run.train_set):,} training and {len(test_set):,} test images; a ViT of "
            f"{run.model.count():,} weights; {folder}"
        )
    try:
        run.train(args.workers, say, bar=not args.quiet)
    except KeyboardInterrupt:
        precision = "" if args.precision == "float32" else f" --precision {args.precision}"
        raise KeyboardInterrupt(
            f"stopped, saved at step {run.saved_step}; go on with: numpyvit train --resume "
            f"{shown(folder, args)}{precision}"
        ) from None
    if run.step < run.steps:
        say(f"no better for {run.stale} epochs: stopped, as --patience says")
    rows = read_metrics(folder)
    say(
        f"test accuracy {best_row(rows)['test_accuracy']:.2%} after {rows[-1]['seconds']:.1f} s of training; "
        f"next: numpyvit evaluate {shown(folder, args)}"
    )


def make_config(
    args: argparse.Namespace, say: Callable[[str], None]
) -> "tuple[TrainConfig, tuple[Dataset, Dataset]]":
    """What the options say, and the data."""
    from .. import data
    from ..data.by_name import is_own
    from ..train.recipes import MADE_FOR, TrainConfig, recipes

    if args.recipe:
        check_choice("recipe", args.recipe, recipes)
    name = args.data or MADE_FOR.get(args.recipe, args.recipe) or "digits"
    if name == "own":
        raise UserError("--recipe own wants --data with the path of your own images")
    if args.test is not None and not is_own(name):
        raise UserError(f"--test is for your own images: {name} has a test set of its own")
    if args.image_size and not Path(name).is_dir():
        raise UserError(
            "--image-size is for a folder of pictures: other data sets have a size of their own"
        )
    size, test = args.image_size or 64, 0.2 if args.test is None else args.test
    if size > 4096:
        raise UserError(f"--image-size is {size}: it can be 4096 at most")
    sets = data.load(name, args.data_dir, (size, size), test, say, not args.quiet)
    given = {
        key: getattr(args, key)
        for key in (*OPTIONS, "recipe", "seed", "micro_batch", "val", "patience", "test")
    }
    return TrainConfig.make(name, sets[0], **given), sets


def load_as(
    config: "TrainConfig",
    args: argparse.Namespace,
    say: Callable[[str], None] = print,
    bar: bool = False,
) -> "tuple[Dataset, Dataset]":
    """The data of a run, or what --data has in its place, if that was moved."""
    from .. import data

    return data.load(
        args.data or config.data, args.data_dir, config.model.image, config.test, say, bar
    )


def shown(folder: Path, args: argparse.Namespace) -> str:
    """The arguments for a command on this run that a person may copy."""
    moved = ["--data", args.data] if args.resume and args.data else []
    moved += ["--device", args.device] if args.device != "cpu" else []
    return shlex.join(
        [str(folder), *moved, *(["--data-dir", args.data_dir] if args.data_dir else [])]
    )


def evaluate(args: argparse.Namespace) -> None:
    from ..classifier import Classifier
    from ..engine.workers import Workers
    from ..losses import cross_entropy_forward
    from ..train.folder import data_md5, read_config

    if args.run.is_file():
        raise UserError(
            f"evaluate wants the folder of a run, which tells the data too, not the file {args.run}"
        )
    config, md5, _ = read_config(args.run)
    classifier = Classifier.load(model_file(args.run))
    name, (train, test) = Path(config.data).stem, load_as(config, args, bar=True)
    if data_md5(train, test) != md5:
        raise UserError(
            f"{args.run} was trained on another version of {config.data} than the one found now: what it "
            "learned from may be in the test set; train again, or restore the data"
        )
    if classifier.classes != test.classes:
        raise UserError(
            f"{args.run}: model.npz knows other classes than {name} of config.json: they are of different runs"
        )
    test = dataclasses.replace(test, mean=classifier.mean, std=classifier.std)
    with Workers(classifier.model, workers=args.workers) as threads:
        logits = threads.predict(classifier.params.to(args.device), test)
    right = logits.argmax(-1) == test.labels
    print(f"{'class':16}{'images':>8}{'accuracy':>10}")
    for k, label in enumerate(test.classes):
        of_class = right[test.labels == k]
        print(
            f"{label:16}{len(of_class):8,}"
            + (f"{of_class.mean():10.2%}" if len(of_class) else f"{'-':>10}")
        )
    loss = float(cross_entropy_forward(logits, test.labels)[0])
    print(f"{'all of ' + name:16}{len(test):8,}{right.mean():10.2%}   loss {loss:.4f}")


def predict(args: argparse.Namespace) -> None:
    import numpy as np

    from ..classifier import Classifier

    first, ours = Path(args.files[0]), "; by the packaged model of digits"
    run = first if first.is_dir() or first.suffix == ".npz" else None
    paths = args.files[1:] if run else args.files
    if (
        first.is_dir()
        and not (first / "config.json").exists()
        and not (first / "model.npz").exists()
    ):
        raise UserError(
            f"{first} holds no run: name its pictures one by one ({first}/*), after the folder of a run"
        )
    if not first.exists() and not first.suffix:
        raise UserError(
            f"{first} does not exist: first comes the folder of a run, a model.npz, or a picture"
        )
    if not paths:
        raise UserError(f"predict wants pictures after {run}: numpyvit predict {run} IMAGE...")
    classifier = Classifier.load(model_file(run)) if run else Classifier.mnist()
    images, remarks = zip(*(classifier.read_image(path) for path in paths), strict=True)
    for path, p, remark in zip(paths, classifier.predict(np.stack(images)), remarks, strict=True):
        best = ", ".join(f"{classifier.classes[k]} ({p[k]:.1%})" for k in p.argsort()[::-1][:3])
        print(f"{path}: {best}   [{remark}{'' if run else ours}]")


def info(args: argparse.Namespace) -> None:
    from ..classifier import Classifier
    from ..engine.process import settings
    from ..look.costs import summary
    from ..look.timing import profile
    from ..vit import presets

    if args.run and args.preset:
        raise UserError("info wants a RUN or a --preset, not both")
    if not args.time and (args.batch_size or args.workers or args.micro_batch):
        raise UserError("--batch-size, --workers and --micro-batch are for info --time")
    if args.run:
        config = Classifier.load(model_file(args.run)).config
    else:
        check_choice("preset", args.preset or "digits", presets)
        config = presets[args.preset or "digits"]
    print(summary(config))
    if not args.run:
        print(f"presets: {', '.join(presets)}")
    for what, how in settings():
        print(f"{what:12} {how}")
    if args.time:
        print(profile(config, args.batch_size or 128, args.workers, args.micro_batch))


def gradcheck(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..backend.device import module_of
    from ..gradcheck import Report, suite
    from ..vit import presets

    xp, began = module_of(args.device), time.perf_counter()
    models = suite.model_checks(xp=xp)
    checks = {
        **suite.layer_checks(xp=xp),
        **(models if args.all else dict(list(models.items())[:: len(models) - 1])),
    }
    if args.preset:
        check_choice("preset", args.preset, presets)

        def whole() -> Report:
            with tqdm(unit=" forwards", leave=False, desc=args.preset) as bar:
                return suite.check_config(presets[args.preset], tick=bar.update, xp=xp)

        checks = {**(checks if args.all else {}), args.preset: whole}
    worst, failed, width = 0.0, 0, max(len(name) for name in checks)
    for name, check in checks.items():
        report = check()
        worst, failed = max(worst, report.error), failed + (not report)
        print(f"{name:{width}}{report.error:8.0e}  {'ok' if report else 'FAILED'}", flush=True)
        if not report or name == args.preset:
            print(report)
    where = "" if args.device == "cpu" else f" on {args.device}"
    print(
        f"{len(checks)} checked{where} in {time.perf_counter() - began:.1f} s, the largest error is {worst:.0e}: "
        + (f"{failed} failed" if failed else "all gradients are right")
    )
    return 1 if failed else 0


def model_file(run: Path) -> Path:
    """Where the classifier of a run's folder is; or the file itself, where that was given."""
    from ..train.folder import read_metrics

    if not run.is_dir() and run.suffix == ".npz":
        return run
    if (run / "config.json").exists() and not (run / "model.npz").exists():
        if read_metrics(run):
            raise UserError(
                f"{run} has lost its model.npz: restore it; or go on with numpyvit train --resume {run}, which "
                "writes it again, unless --val chose its epoch"
            )
        raise UserError(
            f"{run} has no model.npz yet: no epoch is finished; go on with numpyvit train --resume {run}"
        )
    return run / "model.npz"


def download(args: argparse.Namespace) -> None:
    from .. import data

    for name in args.names:
        print(f"{name}: {data.download(name, args.data_dir)}")


def compare(args: argparse.Namespace) -> None:
    from .compare import compare

    print(compare(args.runs))


def augment(args: argparse.Namespace) -> None:
    from ..data import hold_out
    from ..look.pictures import batch_picture
    from ..storage.files import write_atomically

    if args.out.suffix.lower() != ".png" or args.out.exists():
        raise UserError(f"--out is {args.out}: it must end in .png, and not be there already")
    config, (train_set, _) = make_config(args, print)
    if config.val:
        train_set, _ = hold_out(train_set, config.val, config.seed)
    picture = batch_picture(train_set.to(args.device), config.recipe, config.seed)
    write_atomically(args.out, lambda f: picture.save(f, "PNG"))
    print(
        f"{args.out}: on the left images of {args.data or 'digits'}, on the right what training sees of them at first"
    )
