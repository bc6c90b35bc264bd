"""The packaged model reads photographs of handwritten digits, and no empty pages."""

import time
from contextlib import suppress

import numpy as np
import pytest
from handwriting import CONDITIONS, photographed, placed, written
from PIL import Image

from numpyvit import Classifier, UserError, data
from numpyvit.data.drawing import OVERSAMPLE
from numpyvit.data.photograph import find_ink

PAGE = (640, 480)
NONE = -1  # instead of a digit, if nothing was found


@pytest.fixture(scope="module")
def classifier():
    return Classifier.mnist()


@pytest.fixture
def read(classifier, tmp_path):
    """Return a function that saves images as JPEG and returns what is read on each."""

    def function(images):
        found = []
        for image in images:
            image.save(tmp_path / "x.jpg", quality=85)
            try:
                found.append(classifier.read_image(tmp_path / "x.jpg")[0])
            except UserError:
                found.append(np.zeros((28, 28, 1), np.uint8))
        pixels = np.stack(found)
        return np.where(pixels.any((1, 2, 3)), classifier.predict(pixels).argmax(1), NONE)

    return function


def handwriting(digit, rng):
    """Return a digit of random size and stroke width, cropped."""
    return written(digit, rng, int(rng.integers(180, 320)), rng.uniform(0.05, 0.14))


def photographs(condition, seed):
    """Return photographs of the digits 0 to 9 in this condition."""
    images = []
    for digit in range(10):
        rng = np.random.default_rng([digit, seed])
        ink = placed(handwriting(digit, rng), PAGE, rng, margin=70)
        images.append(CONDITIONS[condition](ink, rng))
    return images


def test_clean_drawings_are_read_100_of_100(read):
    images = []
    for i in range(100):
        rng = np.random.default_rng(i)
        page = placed(written(i % 10, rng, 150, rng.uniform(0.05, 0.14)), (240, 320), rng, margin=9)
        is_dark = i // 10 % 2
        images.append(Image.fromarray((255 * (1 - page if is_dark else page)).astype(np.uint8)))
    assert np.array_equal(read(images), np.arange(100) % 10)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_photographs_are_read_9_of_10(read, condition):
    assert np.sum(read(photographs(condition, 0)) == np.arange(10)) >= 9


@pytest.mark.slow
@pytest.mark.parametrize("condition", CONDITIONS)
def test_many_photographs_are_read_95_of_100(read, condition):
    right = sum(np.sum(read(photographs(condition, s)) == np.arange(10)) for s in range(1, 11))
    assert right >= 95


@pytest.mark.parametrize("condition", CONDITIONS)
def test_nothing_is_drawn_on_an_empty_page(read, condition):
    empty = np.zeros(PAGE, np.float32)
    images = [CONDITIONS[condition](empty, np.random.default_rng(seed)) for seed in range(2)]
    assert read(images).tolist() == [NONE, NONE]


@pytest.mark.parametrize("shape", [(28, 28), (280, 280), (50, 30), (10, 400), (1, 1000)])
@pytest.mark.parametrize("noise", [0, 6, 60, 300])
def test_nothing_is_drawn_on_noise_of_any_size(read, shape, noise):
    rng = np.random.default_rng(0)
    pages = [grey + rng.uniform(-noise, noise, shape) for grey in (0, 77, 255)]
    images = [Image.fromarray(page.clip(0, 255).astype(np.uint8)) for page in pages]
    assert read(images).tolist() == [NONE] * 3


def test_nothing_is_drawn_says_why_and_mentions_transparency_only_where_there_is_some(
    classifier, tmp_path
):
    Image.new("L", (28, 28), 255).save(tmp_path / "white.png")
    with pytest.raises(UserError, match=r"white\.png: nothing is drawn on it .*background$"):
        classifier.read_image(tmp_path / "white.png")
    Image.new("RGBA", (300, 200)).save(tmp_path / "clear.png")
    with pytest.raises(UserError, match=r"\(transparent pixels count as white\)$"):
        classifier.read_image(tmp_path / "clear.png")


def on_page(digit, place):
    """Return the photograph of a digit at a certain place of the page, and the place."""
    rng = np.random.default_rng(digit)
    height = {"corner": 90, "touches": 300, "fills": PAGE[0]}[place]
    ink = written(digit, rng, height)
    H, W = ink.shape if place == "fills" else PAGE
    top = H - ink.shape[0] - 20 if place == "corner" else 0
    left = 20 if place == "corner" else (W - ink.shape[1]) // 2
    page = np.zeros((H, W), np.float32)
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return photographed(page, rng)


@pytest.mark.parametrize("place", ["corner", "touches", "fills"])
def test_a_digit_is_read_at_any_place_and_of_any_size(read, place):
    assert np.sum(read([on_page(d, place) for d in range(10)]) == np.arange(10)) >= 9


@pytest.mark.parametrize(("place", "touches"), [("corner", False), ("touches", True)])
def test_a_remark_says_that_the_ink_touches_the_border(classifier, tmp_path, place, touches):
    on_page(8, place).save(tmp_path / "x.png")
    _, remark = classifier.read_image(tmp_path / "x.png")
    assert ("the ink touches the border: leave a margin" in remark) == touches
    assert "left out" not in remark


@pytest.mark.parametrize("condition", ["specks", "frame"])
def test_a_remark_says_that_marks_were_left_out(classifier, tmp_path, condition):
    rng = np.random.default_rng(0)
    CONDITIONS[condition](placed(written(2, rng), PAGE, rng), rng).save(tmp_path / "x.png")
    _, remark = classifier.read_image(tmp_path / "x.png")
    assert "other marks left out" in remark
    assert "touches" not in remark


@pytest.mark.parametrize("digit", [4, 5, 7])
def test_all_strokes_of_a_digit_are_kept(digit):
    # The upper quarter is moved up, so that there is a gap between the strokes.
    ink = written(digit, np.random.default_rng(0), 200)
    upper, lower = np.split(ink, [50])
    apart = np.pad(np.concatenate([upper, 0 * ink[:12], lower]), 70)
    found = find_ink((255 * (1 - apart)).astype(np.uint8))
    assert found is not None
    assert not found.has_other_marks
    kept = found.pixels[..., 0] > 128
    assert np.mean(kept[apart > 0.9]) > 0.99


def test_a_large_photograph_is_read_within_a_second(classifier, tmp_path):
    rng = np.random.default_rng(0)
    ink = placed(written(3, rng, 300), PAGE, rng)
    CONDITIONS["gradient"](ink, rng).resize((3000, 4000)).save(tmp_path / "x.jpg")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pixels, _ = classifier.read_image(tmp_path / "x.jpg")
        times.append(time.perf_counter() - start)
    assert classifier.predict(pixels[None]).argmax() == 3
    assert min(times) < 1


def test_the_search_is_done_on_a_small_image(classifier, tmp_path, monkeypatch):
    from numpyvit.data import drawing

    shapes = []
    monkeypatch.setattr(drawing, "find_ink", lambda page, **_: shapes.append(page.shape))
    for size in ((3000, 1000), (28, 28), (5000, 1)):
        Image.new("L", size).save(tmp_path / "x.png")
        with pytest.raises(UserError):
            classifier.read_image(tmp_path / "x.png")
    assert max(max(shape) for shape in shapes) == 28 * OVERSAMPLE


@pytest.mark.parametrize("is_dark", [False, True])
def test_enlarged_drawings_of_few_pixels_are_read(is_dark, classifier, tmp_path):
    """Their strokes are wide and blurred, unlike those of a photograph."""
    _, test = data.digits()
    images, labels = [], []
    for pixels, label in zip(test.images[:60, ..., 0], test.labels[:60], strict=True):
        page = Image.fromarray(255 - pixels if is_dark else pixels).resize((80, 80))
        page.save(tmp_path / "x.png")
        with suppress(UserError):  # nothing is drawn on it
            images.append(classifier.read_image(tmp_path / "x.png")[0])
            labels.append(label)
    right = classifier.predict(np.stack(images)).argmax(1) == labels
    assert len(images) > 56
    assert right.sum() > 50
