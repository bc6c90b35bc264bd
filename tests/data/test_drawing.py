import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from numpyvit import Classifier, UserError, ViT, ViTConfig
from numpyvit.data.dataset import make_dataset
from numpyvit.data.drawing import centre, fit_ink, ink_box
from numpyvit.testing import seeds


def stroke(seed, H=40, W=40):
    """A crooked white line, drawn finely."""
    rng = np.random.default_rng(seed)
    ink = np.zeros((H, W, 1), np.uint8)
    points = rng.integers(0, (H, W), (3, 2))
    for (y0, x0), (y1, x1) in itertools.pairwise(points):
        for t in np.linspace(0, 1, 200):
            y, x = int(y0 + t * (y1 - y0)), int(x0 + t * (x1 - x0))
            ink[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 255
    return ink


def like_mnist(n=30):
    return np.stack(
        [fit_ink(np.pad(stroke(seed), ((9, 9), (9, 9), (0, 0))), (28, 28), 20) for seed in range(n)]
    )


def box_of(image):
    rows, columns = (np.flatnonzero(image[..., 0].any(axis)) for axis in (1, 0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def alike(a, b):
    """But for a pixel more or less."""
    return np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.7


@given(seeds, st.integers(3, 60), st.integers(3, 60), st.integers(3, 60), st.integers(3, 60))
def test_wherever_it_was_drawn_it_comes_to_the_middle(seed, top, bottom, left, right):
    """In the box's size, whole, its centre of mass on the middle: and so the same from everywhere."""
    ink = stroke(seed)
    image = fit_ink(np.pad(ink, ((top, bottom), (left, right), (0, 0))), (28, 28), 20)
    y0, y1, x0, x1 = box_of(image)
    assert max(y1 - y0, x1 - x0) in (19, 20)  # an end may fade away
    y, x = centre(image[..., 0].astype(float))
    assert abs(y - 14) <= 0.5 or y0 == 0 or y1 == 28
    assert abs(x - 14) <= 0.5 or x0 == 0 or x1 == 28
    assert np.array_equal(image, fit_ink(np.pad(ink, ((5, 5), (5, 5), (0, 0))), (28, 28), 20))


@given(seeds, st.integers(20, 90), st.integers(100, 160))
def test_paper_that_is_not_black_and_ink_that_is_not_white(seed, paper, more):
    ink = np.pad(stroke(seed), ((9, 5), (3, 40), (0, 0)))
    dull = (paper + (ink / 255) * more).astype(np.uint8)
    dull += np.random.default_rng(seed).integers(0, 5, ink.shape, np.uint8)
    assert alike(fit_ink(dull, (28, 28), 20), fit_ink(ink, (28, 28), 20))


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_where_nothing_is_drawn_it_is_black(grey):
    paper = np.clip(grey + np.random.default_rng(0).integers(-6, 7, (30, 50, 1)), 0, 255).astype(
        np.uint8
    )
    assert not fit_ink(paper, (28, 28), 20).any()
    specks = np.zeros((256, 256, 1), np.uint8)
    specks[0, 0] = specks[-1, -1] = 255
    assert fit_ink(specks, (64, 64), 2).max() in (0, 255)


@pytest.mark.parametrize("width", [1, 3, 9])
def test_thin_strokes_do_not_fade(width):
    ink = np.zeros((400, 400, 1), np.uint8)
    ink[50:350, 200 : 200 + width] = 255
    ink[200 : 200 + width, 100:300] = 255
    assert fit_ink(ink, (28, 28), 20).max() == 255


def test_which_images_have_a_box():
    images = like_mnist()
    assert ink_box(images) == 20
    assert ink_box(np.roll(images, 3, axis=1)) == 0  # all of them elsewhere
    moved = images.copy()
    moved[::2] = np.roll(moved[::2], 2, axis=2)
    assert ink_box(moved) == 0
    assert ink_box(255 - images) == 0  # no black paper
    assert ink_box(np.repeat(images, 3, axis=3)) == 0
    assert ink_box(images[:0]) == 0
    assert ink_box(np.concatenate([images, images[:1] * 0])) == 0  # one is empty
    assert ink_box(images[:, 4:24, 4:24]) == 0  # it is the image


def test_a_classifier_puts_drawings_where_its_own_were(tmp_path):
    images = like_mnist()
    model = ViT(ViTConfig(28, 7, 1, 2, width=8, depth=1, heads=2, mlp_width=8))
    classifier = Classifier.of(
        model, model.init(), make_dataset("x", images, np.arange(30) % 2, ("a", "b"))
    )
    classifier.save(tmp_path / "model.npz")
    classifier = Classifier.load(tmp_path / "model.npz")
    assert classifier.box == 20
    drawn = 255 - np.pad(stroke(3), ((60, 5), (3, 90), (0, 0)))[..., 0]
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    pixels, remark = classifier.read_image(tmp_path / "drawn.png")
    assert remark == "133x105 fitted into 28x28, inverted: it was dark on light, centred"
    assert alike(pixels, images[3])
    for paper, pen, light in (
        (120, 20, False),
        (160, 250, True),
        (90, 200, True),
        (255, 150, False),
    ):
        grey = np.where(drawn < 128, pen, paper).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "grey.png")
        pixels, remark = classifier.read_image(tmp_path / "grey.png")
        assert alike(pixels, images[3])
        assert ("inverted" in remark) != light
    Image.new("L", (90, 70), 255).save(tmp_path / "blank.png")
    with pytest.raises(UserError, match=r"blank\.png: nothing is drawn on it"):
        classifier.read_image(tmp_path / "blank.png")
    Image.fromarray(np.roll(images[3, ..., 0], 3, axis=0)).save(tmp_path / "own.png")
    pixels, remark = classifier.read_image(tmp_path / "own.png")  # of just the size: taken as it is
    assert remark == "28x28"
    assert np.array_equal(pixels, np.roll(images[3], 3, axis=0))
