"""The command: numpyvit train, evaluate, predict, info, gradcheck."""

import argparse
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .errors import UserError, check_choice

COMMANDS = ("train", "evaluate", "predict", "info", "gradcheck")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def count(value: str) -> int:
    """The type of options that count something."""
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):
        raise argparse.ArgumentTypeError(f"{value[:40]!r} is not a whole number above 0")
    return int(value)


def text(value: str) -> str:
    """The type of options that name something. An empty one is most often a variable that was not set."""
    if not value:
        raise argparse.ArgumentTypeError("it is empty")
    return value


def path(value: str) -> Path:
    return Path(text(value))


def make_parser() -> Parser:
    from . import __version__
    parser = Parser(prog="numpyvit", description="A Vision Transformer in NumPy, every gradient written by hand.")
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))

    p = commands.add_parser("train", allow_abbrev=False,
                            help="train a model; with no argument, on the digits that ship with the package")
    p.add_argument("--data", type=text, metavar="NAME", help="digits (default), mnist, fashion-mnist or cifar10")
    p.add_argument("--data-dir", type=text, metavar="DIR",
                   help="where the data sets lie: the files of mnist in DIR/mnist, and so on")
    p.add_argument("--preset", type=text, metavar="NAME",
                   help="the model, by default the data set's; `numpyvit info` lists them")
    p.add_argument("--epochs", type=count, metavar="N")
    p.add_argument("--batch-size", type=count, metavar="N")
    p.add_argument("--lr", type=float, metavar="X", help="AdamW's highest learning rate")
    p.add_argument("--weight-decay", type=float, metavar="X")
    p.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")
    p.add_argument("--workers", type=count, metavar="N", help="threads (default: the cores); changes no result")
    p.add_argument("--micro-batch", type=count, metavar="N", help="images in one thread's piece (default: by the model)")
    p.add_argument("--device", type=text, metavar="cpu", default="cpu", help="cpu, the only one in this version")
    p.add_argument("--val", type=float, metavar="FRACTION",
                   help="hold out this share of the training set; keep the best epoch by it")
    p.add_argument("--out", type=path, metavar="DIR", help="the run's folder (default runs/DATA-PRESET-DATE-TIME)")
    p.add_argument("--resume", type=path, metavar="DIR", help="go on with the run in DIR")
    p.add_argument("--quiet", action="store_true", help="print nothing but errors")

    p = commands.add_parser("evaluate", allow_abbrev=False, help="measure a trained model on its test set")
    p.add_argument("run", type=path, metavar="RUN", help="a run's folder")
    p.add_argument("--data-dir", type=text, metavar="DIR", help="as for train")
    p.add_argument("--workers", type=count, metavar="N")

    p = commands.add_parser("predict", allow_abbrev=False, help="say what is in images")
    p.add_argument("run", type=path, metavar="RUN", help="a run's folder, or a model.npz")
    p.add_argument("images", nargs="+", type=text, metavar="IMAGE", help="any file that Pillow opens")

    p = commands.add_parser("info", allow_abbrev=False,
                            help="layers, shapes, weights and FLOPs of a model, and how it would run here")
    p.add_argument("run", nargs="?", type=path, metavar="RUN", help="a run's folder, or a model.npz")
    p.add_argument("--preset", type=text, metavar="NAME")
    p.add_argument("--time", action="store_true", help="time a training step, layer by layer")
    p.add_argument("--batch-size", type=count, metavar="N", help="of that step; default 128")
    p.add_argument("--workers", type=count, metavar="N", help="as for train")
    p.add_argument("--micro-batch", type=count, metavar="N", help="as for train")

    p = commands.add_parser("gradcheck", allow_abbrev=False,
                            help="hold the gradients of every layer, and of a model, against numerical differences")
    p.add_argument("--preset", type=text, metavar="NAME", help="the whole model of this preset, and nothing else")
    p.add_argument("--all", action="store_true", help="the layers, and a tiny model in every combination of its options")
    return parser


def train(args: argparse.Namespace) -> None:
    from . import data
    from .recipes import TrainConfig
    from .runs import read_config, read_metrics
    from .training import Run

    check_choice("--device", args.device, ["cpu"])
    say = (lambda line: None) if args.quiet else print
    if args.resume:
        fixed = [f"--{name.replace('_', '-')}" for name in ("data", "preset", "epochs", "batch_size", "lr", "weight_decay",
                 "seed", "micro_batch", "val", "out") if getattr(args, name) is not None]
        if fixed:
            raise UserError(f"{fixed[0]} cannot be given with --resume: the run's config.json decides it")
        folder = args.resume
        train_set, test_set = data.load(read_config(folder)[0].data, args.data_dir)
        run = Run.resume(folder, train_set, test_set, say)
        say(f"resuming {folder} at step {run.step} of {run.steps}")
    else:
        name = args.data or "digits"
        train_set, test_set = data.load(name, args.data_dir)
        config = TrainConfig.make(
            name, train_set, args.preset, epochs=args.epochs, batch_size=args.batch_size, lr=args.lr,
            weight_decay=args.weight_decay, seed=args.seed, micro_batch=args.micro_batch, val=args.val)
        preset = config.recipe.preset.replace("/", "-")
        folder = args.out or Path("runs", f"{name}-{preset}-{time.strftime('%Y%m%d-%H%M%S')}")
        run = Run.start(config, folder, train_set, test_set)
        say(f"{name}: {len(run.train_set):,} training and {len(test_set):,} test images; a ViT of "
            f"{run.model.count():,} weights; {folder}")
    try:
        run.train(args.workers, say, bar=not args.quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped, saved at step {run.saved_step}; go on with: numpyvit train --resume "
                                f"{shown(folder, args.data_dir)}") from None
    row = read_metrics(folder)[-1]
    say(f"test accuracy {row['test_accuracy']:.2%} after {row['seconds']:.1f} s of training; "
        f"next: numpyvit evaluate {shown(folder, args.data_dir)}")


def shown(folder: Path, data_dir: str | None) -> str:
    """The arguments for a command that a person may copy."""
    return shlex.quote(str(folder)) + (f" --data-dir {shlex.quote(data_dir)}" if data_dir else "")


def evaluate(args: argparse.Namespace) -> None:
    from . import data
    from .classifier import Classifier
    from .losses import cross_entropy_forward
    from .parallel import Workers
    from .runs import read_config

    if args.run.suffix == ".npz":
        raise UserError(f"evaluate wants the folder of a run, which tells the data too, not the file {args.run}")
    name = read_config(args.run)[0].data
    classifier = Classifier.load(model_file(args.run))
    _, test = data.load(name, args.data_dir)
    if classifier.classes != test.classes:
        raise UserError(f"{args.run}: model.npz knows other classes than {name} of config.json: they are of different runs")
    test = dataclasses.replace(test, mean=classifier.mean, std=classifier.std)
    with Workers(classifier.model, workers=args.workers) as threads:
        logits = threads.predict(classifier.params, test)
    right = logits.argmax(-1) == test.labels
    print(f"{'class':16}{'images':>8}{'accuracy':>10}")
    for k, label in enumerate(test.classes):
        of_class = right[test.labels == k]
        print(f"{label:16}{len(of_class):8,}{of_class.mean() if len(of_class) else 0:10.2%}")
    loss = float(cross_entropy_forward(logits, test.labels)[0])
    print(f"{'all of ' + name:16}{len(test):8,}{right.mean():10.2%}   loss {loss:.4f}")


def predict(args: argparse.Namespace) -> None:
    import numpy as np

    from .classifier import Classifier

    classifier = Classifier.load(model_file(args.run))
    images, remarks = zip(*(classifier.read_image(path) for path in args.images), strict=True)
    for path, p, remark in zip(args.images, classifier.predict(np.stack(images)), remarks, strict=True):
        best = ", ".join(f"{classifier.classes[k]} ({p[k]:.1%})" for k in p.argsort()[::-1][:3])
        print(f"{path}: {best}   [{remark}]")


def info(args: argparse.Namespace) -> None:
    from .classifier import Classifier
    from .machine import settings
    from .profile import profile
    from .summary import summary
    from .vit import presets

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

    from .gradcheck import Report, suite
    from .vit import presets

    began = time.perf_counter()
    models = suite.model_checks()
    checks = {**suite.layer_checks(), **(models if args.all else dict(list(models.items())[::len(models) - 1]))}
    if args.preset:
        check_choice("preset", args.preset, presets)

        def whole() -> Report:
            with tqdm(unit=" forwards", leave=False, desc=args.preset) as bar:
                return suite.check_config(presets[args.preset], tick=bar.update)

        checks = {**(checks if args.all else {}), args.preset: whole}
    worst, failed, width = 0.0, 0, max(len(name) for name in checks)
    for name, check in checks.items():
        report = check()
        worst, failed = max(worst, report.error), failed + (not report)
        print(f"{name:{width}}{report.error:8.0e}  {'ok' if report else 'FAILED'}", flush=True)
        if not report or name == args.preset:
            print(report)
    print(f"{len(checks)} checked in {time.perf_counter() - began:.1f} s, the largest error is {worst:.0e}: "
          + (f"{failed} failed" if failed else "all gradients are right"))
    return 1 if failed else 0


def model_file(run: Path) -> Path:
    """Where the classifier of a run's folder is; or the file itself, where that was given."""
    if run.suffix == ".npz":
        return run
    if (run / "config.json").exists() and not (run / "model.npz").exists():
        raise UserError(f"{run} has no model.npz yet: no epoch is finished; go on with numpyvit train --resume {run}")
    return run / "model.npz"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 where gradcheck found something or nobody reads the output, 2 for a
    user's error (one line on stderr), 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")                # names that the terminal cannot show
    try:
        if argv and not argv[0].startswith("-"):
            check_choice("command", argv[0], COMMANDS)
        args = make_parser().parse_args(argv)
        commands: dict[str, Callable[[argparse.Namespace], int | None]] = {
            "train": train, "evaluate": evaluate, "predict": predict, "info": info, "gradcheck": gradcheck}
        return commands[args.command](args) or 0
    except UserError as error:
        message = str(error)[:2000]
    except KeyboardInterrupt as stop:
        print(f"numpyvit: {stop if stop.args else 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:                                              # `numpyvit info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("numpyvit: stopped, since nothing reads its output any more", file=sys.stderr)
        return 1
    except OSError as error:
        message = f"{error.filename or 'the output'}: {error.strerror or error}; choose another file, or mend this one"
    except MemoryError:
        message = "out of memory: try fewer --workers, a smaller --micro-batch or a smaller --preset"
    print("numpyvit: error: " + " ".join(message.split()), file=sys.stderr)
    return 2
