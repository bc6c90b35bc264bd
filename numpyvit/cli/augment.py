"""numpyvit augment: an image of a training batch, before and after augmentation."""

import argparse
from typing import Any

from ..errors import UserError, say
from .inputs import make_config
from .options import add_command, add_config_options, add_device, path


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit augment`."""
    p = add_command(
        commands,
        "augment",
        "draw a training batch, as it is and as train would see it with the same options",
        "--data PHOTOS --flip --rotate 20 --out picture.png",
    )
    add_config_options(p)
    add_device(p)
    p.add_argument(
        "--out", type=path, metavar="FILE.png", required=True, help="where to write the image"
    )
    p.add_argument("--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> None:
    """Write the image."""
    from ..data import hold_out
    from ..look.pictures import batch_picture
    from ..storage.files import write_atomically

    if args.out.suffix.lower() != ".png":
        raise UserError(f"--out is {args.out}: it must end in .png")
    if args.out.exists():
        raise UserError(f"--out is {args.out}, which exists already: choose another name")
    if not args.out.parent.is_dir():
        raise UserError(f"--out is {args.out}, but there is no folder {args.out.parent}: create it")
    config, (train_set, _) = make_config(args, say)
    if config.val:
        train_set, _ = hold_out(train_set, config.val, config.seed)
    image = batch_picture(train_set.to(args.device), config.recipe, config.seed)
    write_atomically(args.out, lambda f: image.save(f, "PNG"))
    say(
        f"{args.out}: on the left images of {args.data or 'digits'}, on the right what training "
        "sees of them at first"
    )
