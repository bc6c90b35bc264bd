"""numpyvit show: draw what a model has learned, what it attends to, and how well it does.

A picture is a function here, whose docstring begins with the line that --help shows.
"""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, check_choice, say
from .evaluate import own_test_set
from .inputs import model_file
from .options import add_command, add_data_dir, path, text

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..backend.arrays import Array
    from ..classifier import Classifier
    from ..data import Dataset

DISTANCE_IMAGES = 128  # as in figure 11 of the ViT paper


@dataclass(frozen=True)
class Request:
    """What the command line asks for: a picture of a run and of images.

    run: the folder of a run, or a model.npz; None for the packaged model. images: the other
    files. args: the options.
    """

    run: Path | None
    images: list[Path]
    args: argparse.Namespace

    def classifier(self, images: int = 0) -> "Classifier":
        """Return the model. Raises UserError unless that many images are given."""
        from ..classifier import Classifier

        what = self.args.what
        if len(self.images) != images:
            usage = f"numpyvit show {what} [RUN]{' IMAGE' * images} --out FILE.png"
            found = ", ".join(map(str, self.images)) or "no image"
            raise UserError(
                f"{what} needs {images or 'no'} image after the run, not {found}: {usage}"
            )
        return Classifier.load(model_file(self.run)) if self.run else Classifier.mnist()

    def model_and_image(self) -> "tuple[Classifier, Array]":
        """Return the model and the pixels of the one image, and say how it was prepared."""
        classifier = self.classifier(images=1)
        return classifier, self.pixels(classifier, self.images[0])

    def pixels(self, classifier: "Classifier", image: Path) -> "Array":
        """Return an image as the model sees it, and say how it was prepared."""
        pixels, remark = classifier.read_image(image)
        say(f"{image}: {remark}")
        return pixels

    def test_set(self) -> "tuple[Classifier, Dataset]":
        """Return the model and the test set of its run.

        Raises UserError if there is no run, or if its data are not those found now.
        """
        if not self.run or self.run.is_file():
            raise UserError(
                f"{self.args.what} needs the folder of a run, whose test set it reads: numpyvit "
                f"show {self.args.what} RUN --out FILE.png"
            )
        classifier = self.classifier()
        test, _ = own_test_set(self.run, self.args, classifier)
        return classifier, test


def patches(ask: Request) -> "Image":
    """Draw an image cut into numbered patches, and the sequence that they become."""
    from ..look.image_pictures import patches_picture

    return patches_picture(*ask.model_and_image())


def filters(ask: Request) -> "Image":
    """Draw the filters of the patch embedding."""
    from ..look.weight_pictures import filters_picture

    return filters_picture(ask.classifier())


def positions(ask: Request) -> "Image":
    """Draw how similar the positions are, as a grid of grids (ViT paper, figure 7)."""
    from ..look.weight_pictures import positions_picture

    return positions_picture(ask.classifier())


def sinusoidal(ask: Request) -> "Image":
    """Draw the table of sinusoidal positions of the model's size."""
    from ..look.weight_pictures import sinusoidal_picture

    return sinusoidal_picture(ask.classifier())


def broadcast(ask: Request) -> "Image":
    """Draw how positions are broadcast over the tokens of IMAGE and of its mirror image."""
    import numpy as np

    from ..look.maps import added_positions
    from ..look.weight_pictures import broadcast_picture

    classifier = ask.classifier(images=1)
    added_positions(classifier.model, classifier.params)  # whether there are any
    pixels = ask.pixels(classifier, ask.images[0])
    return broadcast_picture(classifier, np.stack([pixels, pixels[:, ::-1]]))


def attention(ask: Request) -> "Image":
    """Draw the attention of each head in each block, of all patches or that of --patch."""
    from ..look.image_pictures import attention_picture

    return attention_picture(*ask.model_and_image(), ask.args.patch)


def rollout(ask: Request) -> "Image":
    """Draw attention rollout: from which patches the output comes."""
    from ..look.image_pictures import rollout_picture

    return rollout_picture(*ask.model_and_image())


def relevance(ask: Request) -> "Image":
    """Draw gradient-weighted attention for the three likeliest classes."""
    from ..look.image_pictures import relevance_picture

    return relevance_picture(*ask.model_and_image())


def components(ask: Request) -> "Image":
    """Draw the first three principal components of the patches' features, block by block."""
    from ..look.image_pictures import components_picture

    return components_picture(*ask.model_and_image())


def distance(ask: Request) -> "Image":
    """Draw the mean attention distance by depth (figure 11), of IMAGE or of test images."""
    import numpy as np

    from ..data import normalise
    from ..look.attention import attention_weights
    from ..look.curves import distance_picture, new_figure
    from ..look.maps import attention_distance

    new_figure(1, 1)  # whether matplotlib is there, before anything takes time
    if ask.images:
        classifier, one = ask.model_and_image()
        images = one[None]
    else:
        classifier, test = ask.test_set()
        images = test.images[:DISTANCE_IMAGES]
    c = classifier.config
    total = np.zeros((c.depth, c.heads))
    for pixels in images:  # one by one, since large models have much attention
        x = normalise(pixels[None], classifier.mean, classifier.std, classifier.params.flat.dtype)
        found = attention_weights(classifier.model, classifier.params, x)
        total += [attention_distance(weights, c) for weights in found.values()]
    return distance_picture(total / len(images), len(images))


def curves(ask: Request) -> "Image":
    """Draw the training curves of one or several runs."""
    from ..look.curves import training_picture
    from ..train.folder import read_config
    from ..train.metrics import read_metrics

    runs = [*([ask.run] if ask.run else []), *ask.images]
    if not runs:
        raise UserError("curves needs runs: numpyvit show curves RUN... --out FILE.png")
    for folder in runs:
        read_config(folder)  # whether it is a run
    return training_picture({str(folder): read_metrics(folder) for folder in runs})


def confusion(ask: Request) -> "Image":
    """Draw the confusion matrix on the test set of a run."""
    from ..look.result_pictures import confusion_picture

    classifier, test = ask.test_set()
    return confusion_picture(classifier.predict(test.images), test)


def mistakes(ask: Request) -> "Image":
    """Draw the worst mistakes on the test set of a run, with their probabilities."""
    from ..look.result_pictures import mistakes_picture

    classifier, test = ask.test_set()
    return mistakes_picture(classifier.predict(test.images), test)


def gradcheck(ask: Request) -> "Image":
    """Draw the error of each layer's gradients, as numpyvit gradcheck finds it."""
    from tqdm import tqdm

    from ..gradcheck import SHARP, suite
    from ..look.curves import gradcheck_picture, new_figure

    if ask.run or ask.images:
        raise UserError("gradcheck checks the layers and needs no run: give only --out FILE.png")
    new_figure(1, 1)  # whether matplotlib is there, before anything takes time
    checks = suite.layer_checks()
    reports = {name: check() for name, check in tqdm(checks.items(), leave=False)}
    return gradcheck_picture(reports, SHARP)


DRAWN: tuple[Callable[[Request], "Image"], ...] = (
    *(patches, filters, positions, sinusoidal, broadcast),
    *(attention, rollout, relevance, components, distance),
    *(curves, confusion, mistakes, gradcheck),
)
PICTURES = {draw.__name__: draw for draw in DRAWN}


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit show`."""
    width = max(map(len, PICTURES))
    lines = ["pictures:"]
    for name, draw in PICTURES.items():
        about = (inspect.getdoc(draw) or "").splitlines()[0].removeprefix("Draw ")
        lines.append(f"  {name:{width}}  {about}")
    lines.append(
        f"  {'page':{width}}  the page of `numpyvit demo`, as one .html file (--out FILE.html)"
    )
    lines.append("\nnumpyvit augment draws a training batch as augmentation makes it.")
    p = add_command(
        commands,
        "show",
        "draw what a model has learned, what it attends to, and how well it does",
        "rollout digit.png --out rollout.png",
        usage="numpyvit show [-h] WHAT [RUN] [IMAGE] --out FILE.png",
    )
    p.epilog = "\n".join([*lines, "", p.epilog or ""])
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.add_argument("what", type=text, metavar="WHAT", help="the picture, one of those below")
    p.add_argument(
        "files",
        nargs="*",
        type=path,
        metavar="FILE",
        help="RUN: the folder of a run, or a model.npz; without it, the packaged model of "
        "handwritten digits is used. IMAGE: an image file, for pictures of one image",
    )
    p.add_argument(
        "--out", type=path, metavar="FILE", required=True, help="where to write the picture"
    )
    p.add_argument(
        "--patch",
        type=int,
        metavar="N",
        help="for attention: show that of patch N, as `patches` numbers them",
    )
    p.add_argument(
        "--data",
        type=text,
        metavar="PATH",
        help="where the run's own images are now, if they have been moved",
    )
    add_data_dir(p)


def save_page(args: argparse.Namespace) -> None:
    """Write the page of `numpyvit demo`, with images in it, as one HTML file."""
    from ..look.snapshot import save_snapshot
    from .models import load_model, read_examples, split_files

    run, images = split_files([str(file) for file in args.files])
    if not images:
        raise UserError("page needs an image: numpyvit show page [RUN] IMAGE... --out FILE.html")
    if args.out.suffix.lower() != ".html":
        raise UserError(f"--out is {args.out}: it must end in .html")
    if args.out.exists():
        raise UserError(f"--out is {args.out}, which exists already: choose another name")
    classifier = load_model(run)
    size = save_snapshot(args.out, classifier, read_examples(classifier, images))
    say(f"{args.out}: {size / 1e6:.1f} MB; open it in a browser")


def run(args: argparse.Namespace) -> None:
    """Draw the picture and write it."""
    from ..storage.files import write_atomically

    check_choice("picture", args.what, [*PICTURES, "page"])
    if args.what == "page":
        save_page(args)
        return
    if args.out.suffix.lower() != ".png":
        raise UserError(f"--out is {args.out}: it must end in .png")
    if args.out.exists():
        raise UserError(f"--out is {args.out}, which exists already: choose another name")
    if args.patch is not None and args.what != "attention":
        raise UserError(f"--patch is for the picture attention, not for {args.what}")
    first = args.files[0] if args.files else None
    if first and not first.exists() and not first.suffix:
        raise UserError(
            f"{first} does not exist: after {args.what} comes the folder of a run, a model.npz or "
            "an image"
        )
    has_run = first is not None and (first.is_dir() or first.suffix == ".npz")
    ask = Request(first if has_run else None, args.files[has_run:], args)
    image = PICTURES[args.what](ask)
    write_atomically(args.out, lambda f: image.save(f, "PNG"))
    say(f"{args.out}: {image.width}x{image.height} pixels")
