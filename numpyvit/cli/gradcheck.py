"""numpyvit gradcheck: compare all gradients with numerical differences."""

import argparse
import time
from typing import Any

from ..errors import check_choice, say, say_lines
from .options import add_command, add_device, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit gradcheck`."""
    p = add_command(
        commands,
        "gradcheck",
        "compare the gradients of every layer, and of a model, with numerical differences",
        "--preset mnist",
    )
    p.add_argument(
        "--preset",
        type=text,
        metavar="NAME",
        help="check the whole model of this preset, and nothing else",
    )
    p.add_argument(
        "--all",
        action="store_true",
        help="check the layers, and a tiny model in every combination of its options",
    )
    add_device(p)


def run(args: argparse.Namespace) -> int:
    """Print the largest error of each check; return 1 if one failed, otherwise 0."""
    from tqdm import tqdm

    from ..backend.device import module_of
    from ..gradcheck import Report, suite
    from ..presets import presets

    xp = module_of(args.device)
    start = time.perf_counter()
    layers = suite.layer_checks(xp=xp)
    models = suite.model_checks(xp=xp) if args.all else suite.few_model_checks(xp=xp)
    checks = {**layers, **models}
    if args.preset:
        check_choice("preset", args.preset, presets)

        def check_preset() -> Report:
            # disable=None: not where stderr is no terminal
            with tqdm(unit=" forwards", leave=False, desc=args.preset, disable=None) as bar:
                return suite.check_config(presets[args.preset], tick=bar.update, xp=xp)

        checks = {**(checks if args.all else {}), args.preset: check_preset}
    worst = 0.0
    failed = 0
    width = max(len(name) for name in ["gradients of", *checks])
    say(f"{'gradients of':{width}}   error")
    for name, check in checks.items():
        report = check()
        worst = max(worst, report.error)
        failed += not report
        say(f"{name:{width}}{report.error:8.0e}  {'ok' if report else 'FAILED'}")
        if not report or name == args.preset:
            say_lines(str(report))
    where = "" if args.device == "cpu" else f" on {args.device}"
    verdict = f"{failed} failed" if failed else "all gradients are right"
    say(
        f"{len(checks)} checked{where} in {time.perf_counter() - start:.1f} s, the largest error "
        f"is {worst:.0e}: {verdict}"
    )
    return 1 if failed else 0
