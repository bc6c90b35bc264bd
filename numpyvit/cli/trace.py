"""numpyvit trace: print every array that a model computes for one image."""

import argparse
from typing import Any

from ..errors import UserError, check_choice, say
from .models import FILES_HELP, load_model, read_examples, split_files
from .options import add_command, text


def add_parser(commands: Any) -> None:
    """Add the parser of `numpyvit trace`."""
    p = add_command(
        commands,
        "trace",
        "print every array that a model computes for an image, forward and backward",
        "digit.png --layer blocks.0.attention",
        usage="numpyvit trace [-h] [--label CLASS] [--layer NAME] [RUN] [IMAGE]",
    )
    p.add_argument(
        "files",
        nargs="*",
        type=text,
        metavar="FILE",
        help=FILES_HELP + "; without an IMAGE, the packaged model is given a packaged digit",
    )
    p.add_argument(
        "--label",
        type=text,
        metavar="CLASS",
        help="the class whose loss the backward pass starts from (default: the name of the image's "
        "folder if it is a class, otherwise the likeliest class)",
    )
    p.add_argument(
        "--layer", type=text, metavar="NAME", help="only this layer, such as blocks.0.attention"
    )


def run(args: argparse.Namespace) -> None:
    """Print the trace, and the number of weights of each layer."""
    from ..data import normalise
    from ..look.samples import accuracy_images, some_of_each_class
    from ..look.trace import trace
    from ..look.walk import layers_of, walk, weights_of_layers

    folder, images = split_files(args.files)
    if len(images) > 1:
        raise UserError(f"trace takes one image, not {len(images)}")
    if folder and not images:
        raise UserError(f"trace needs an image after {folder}: numpyvit trace {folder} IMAGE")
    classifier = load_model(folder)
    examples = read_examples(classifier, images)
    example = (examples or some_of_each_class(accuracy_images(classifier, None)))[0]
    probabilities = classifier.predict(example.pixels[None])[0]
    label = int(probabilities.argmax()) if example.label is None else example.label
    if args.label is not None:
        check_choice("class", args.label, classifier.classes)
        label = classifier.classes.index(args.label)
    image = normalise(example.pixels[None], classifier.mean, classifier.std)[0]
    recorded = trace(classifier.model, classifier.params, image, label, with_formulas=True)
    if args.layer is not None:
        check_choice("layer", args.layer, layers_of(recorded))
    about = f" [{example.remark}]" if example.remark else ""
    say(f"{example.name}{about}: class {classifier.classes[label]}, loss {recorded.loss:.6g}")
    say(f"    {'array':10} {'shape':20} {'mean':>11} {'std':>11}  line: statement")
    for line in walk(recorded, args.layer or ""):
        say(line)
    if args.layer is None:
        say("weights")
        for layer, count in weights_of_layers(classifier.params).items():
            say(f"    {layer:29} {count:11,}")
        say(f"    {'all':29} {classifier.params.flat.size:11,}")
