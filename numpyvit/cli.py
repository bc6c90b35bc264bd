"""The command: numpyvit train, evaluate, predict, info."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from .errors import UserError, check_choice

COMMANDS = ("train", "evaluate", "predict", "info")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def count(text: str) -> int:
    """The type of options that count something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def make_parser() -> Parser:
    from . import __version__
    parser = Parser(prog="numpyvit", description="A Vision Transformer in NumPy, every gradient written by hand.")
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))

    p = commands.add_parser("train", allow_abbrev=False,
                            help="train a model; with no argument, on the digits that ship with the package")
    p.add_argument("--data", metavar="NAME", help="digits (default), mnist, fashion-mnist or cifar10")
    p.add_argument("--data-dir", metavar="DIR", help="where the data sets lie: the files of mnist in DIR/mnist, and so on")
    p.add_argument("--preset", metavar="NAME", help="the model, by default the data set's; `numpyvit info` lists them")
    p.add_argument("--epochs", type=count, metavar="N")
    p.add_argument("--batch-size", type=count, metavar="N")
    p.add_argument("--lr", type=float, metavar="X", help="AdamW's highest learning rate")
    p.add_argument("--weight-decay", type=float, metavar="X")
    p.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")
    p.add_argument("--workers", type=count, metavar="N", help="threads (default: the cores); changes no result")
    p.add_argument("--micro-batch", type=count, metavar="N", help="images in one thread's piece (default: by the model)")
    p.add_argument("--device", metavar="cpu", default="cpu", help="cpu, the only one in this version")
    p.add_argument("--val", type=float, metavar="FRACTION",
                   help="hold out this share of the training set; keep the best epoch by it")
    p.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default runs/DATA-PRESET-DATE-TIME)")
    p.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR")
    p.add_argument("--quiet", action="store_true", help="print nothing but errors")

    p = commands.add_parser("evaluate", allow_abbrev=False, help="measure a trained model on its test set")
    p.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    p.add_argument("--data-dir", metavar="DIR", help="as for train")
    p.add_argument("--workers", type=count, metavar="N")

    p = commands.add_parser("predict", allow_abbrev=False, help="say what is in images")
    p.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or a model.npz")
    p.add_argument("images", nargs="+", metavar="IMAGE", help="any file that Pillow opens")

    p = commands.add_parser("info", allow_abbrev=False, help="layers, shapes, weights and FLOPs of a model")
    p.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run's folder, or a model.npz")
    p.add_argument("--preset", metavar="NAME")
    return parser


def train(args: argparse.Namespace) -> None:
    from . import data
    from .training import METRICS, Run, TrainConfig, read_config, read_metrics

    check_choice("--device", args.device, ["cpu"])
    say = (lambda line: None) if args.quiet else print
    if args.resume:
        fixed = [f"--{name.replace('_', '-')}" for name in ("data", "preset", "epochs", "batch_size", "lr", "weight_decay",
                 "seed", "micro_batch", "val", "out") if getattr(args, name) is not None]
        if fixed:
            raise UserError(f"{fixed[0]} cannot be given with --resume: the run's config.json decides it")
        folder = args.resume
        train_set, test_set = data.load(read_config(folder)["data"], args.data_dir)
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
        where = f" --data-dir {args.data_dir}" if args.data_dir else ""
        raise KeyboardInterrupt(f"stopped at step {run.step}; go on with: numpyvit train --resume {folder}{where}") from None
    rows = read_metrics(folder)
    if not rows:
        raise UserError(f"{folder / METRICS} holds no row: nothing was trained")
    say(f"test accuracy {rows[-1]['test_accuracy']:.2%} after {rows[-1]['seconds']:.1f} s of training; "
        f"next: numpyvit evaluate {folder}" + (f" --data-dir {args.data_dir}" if args.data_dir else ""))


def evaluate(args: argparse.Namespace) -> None:
    from . import data, training
    from .classifier import Classifier
    from .parallel import Workers

    name = training.read_config(args.run)["data"]
    classifier = Classifier.load(model_file(args.run))
    _, test = data.load(name, args.data_dir)
    with Workers(classifier.model, workers=args.workers) as threads:
        logits = threads.predict(classifier.params, test)
    right = logits.argmax(-1) == test.labels
    print(f"{'class':16}{'images':>8}{'accuracy':>10}")
    for k, label in enumerate(test.classes):
        of_class = right[test.labels == k]
        print(f"{label:16}{len(of_class):8,}{of_class.mean() if len(of_class) else 0:10.2%}")
    loss = float(training.cross_entropy_forward(logits, test.labels)[0])
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
    from .summary import summary
    from .vit import presets

    if args.run and args.preset:
        raise UserError("info wants a RUN or a --preset, not both")
    if args.run:
        config = Classifier.load(model_file(args.run)).config
    else:
        check_choice("preset", args.preset or "digits", presets)
        config = presets[args.preset or "digits"]
    print(summary(config))
    if not args.run:
        print(f"presets: {', '.join(presets)}")


def model_file(run: Path) -> Path:
    return run if run.suffix == ".npz" else run / "model.npz"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 2 for a user's error (one line on stderr), 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv and not argv[0].startswith("-"):
            check_choice("command", argv[0], COMMANDS)
        args = make_parser().parse_args(argv)
        {"train": train, "evaluate": evaluate, "predict": predict, "info": info}[args.command](args)
        return 0
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt as stop:
        print(f"numpyvit: {stop if stop.args else 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:                                              # `numpyvit info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message = f"{error.filename or 'a file'}: {error.strerror or error}"
    except MemoryError:
        message = "out of memory: try a smaller --micro-batch, or fewer --workers"
    print("numpyvit: error: " + " ".join(message.split()), file=sys.stderr)
    return 2
