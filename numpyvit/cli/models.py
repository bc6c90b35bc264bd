"""The model and the images that a command is given as [RUN] [IMAGE...]."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .inputs import model_file

if TYPE_CHECKING:
    from ..classifier import Classifier
    from ..look.session import Example

FILES_HELP = (
    "RUN: the folder of a run, or a model.npz; without it, the model of handwritten digits that "
    "ships with the package is used. IMAGE: PNG, JPEG and other image files of any size"
)


def split_files(files: list[str]) -> tuple[Path | None, list[str]]:
    """Return the run, or None for the packaged model, and the images.

    Raises UserError if the first file is a folder without a run, or does not exist.
    """
    if not files:
        return None, []
    first = Path(files[0])
    if first.is_dir() and not any((first / name).exists() for name in ("config.json", "model.npz")):
        raise UserError(f"{first} holds no run: give the folder of a run, a model.npz or an image")
    if not first.exists():
        raise UserError(
            f"{first} does not exist: give the folder of a run, a model.npz or an image"
        )
    if first.is_dir() or first.suffix == ".npz":
        return first, files[1:]
    return None, files


def load_model(run: Path | None) -> "Classifier":
    """Return the classifier of a run, or the packaged one."""
    from ..classifier import Classifier

    return Classifier.load(model_file(run)) if run else Classifier.mnist()


def read_examples(classifier: "Classifier", images: list[str]) -> "list[Example]":
    """Return the images; one in a folder with the name of a class has this class."""
    from ..look.session import Example

    examples = []
    for image in images:
        pixels, remark = classifier.read_image(image)
        folder = Path(image).absolute().parent.name
        label = classifier.classes.index(folder) if folder in classifier.classes else None
        examples.append(Example(Path(image).name, pixels, label, remark))
    return examples
