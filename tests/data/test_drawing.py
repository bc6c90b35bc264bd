import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from numpyvit import Classifier, UserError, ViT, ViTConfig
from numpyvit.data.dataset import make_dataset
from numpyvit.data.drawing import centre, drawing_box, fit_drawing, read_drawing
from numpyvit.testing import seeds


def stroke(seed, H=40, W=40):
    """Return an image (H, W, 1) of a random white line with one bend, on black."""
    rng = np.random.default_rng(seed)
    ink = np.zeros((H, W, 1), np.uint8)
    points = rng.integers(0, (H, W), (3, 2))
    for (y0, x0), (y1, x1) in itertools.pairwise(points):
        for t in np.linspace(0, 1, 200):
            y = int(y0 + t * (y1 - y0))
            x = int(x0 + t * (x1 - x0))
            ink[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 255
    return ink


def pad(ink, top, bottom, left, right):
    return np.pad(ink, ((top, bottom), (left, right), (0, 0)))


def like_mnist(n=30):
    """Return drawings (n, 28, 28, 1), scaled and centred as in MNIST."""
    drawings = [fit_drawing(pad(stroke(seed), 9, 9, 9, 9), (28, 28), 20) for seed in range(n)]
    return np.stack(drawings)


def extent(image):
    """Return top, bottom, left and right of the ink (the ends are exclusive)."""
    rows = np.flatnonzero(image[..., 0].any(1))
    columns = np.flatnonzero(image[..., 0].any(0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def are_similar(a, b):
    """Return whether two images are the same except for a pixel here and there."""
    return np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.7


@given(seeds, st.integers(3, 60), st.integers(3, 60), st.integers(3, 60), st.integers(3, 60))
def test_a_drawing_is_scaled_and_centred_wherever_it_was(seed, top, bottom, left, right):
    ink = stroke(seed)
    image = fit_drawing(pad(ink, top, bottom, left, right), (28, 28), 20)
    y0, y1, x0, x1 = extent(image)
    assert max(y1 - y0, x1 - x0) in (19, 20)  # the end of a stroke may become too faint
    y, x = centre(image[..., 0].astype(float))
    # Half a pixel, and a little more since the values are rounded after it was placed.
    assert abs(y - 14) <= 0.505 or y0 == 0 or y1 == 28
    assert abs(x - 14) <= 0.505 or x0 == 0 or x1 == 28
    assert np.array_equal(image, fit_drawing(pad(ink, 5, 5, 5, 5), (28, 28), 20))


@given(seeds, st.integers(20, 90), st.integers(100, 160))
def test_grey_ink_on_grey_paper_becomes_white_on_black(seed, paper, contrast):
    ink = pad(stroke(seed), 9, 5, 3, 40)
    grey = (paper + (ink / 255) * contrast).astype(np.uint8)
    grey += np.random.default_rng(seed).integers(0, 5, ink.shape, np.uint8)
    found = read_drawing(grey, (28, 28), 20)
    assert found is not None
    assert are_similar(found[0], fit_drawing(ink, (28, 28), 20))


@pytest.mark.parametrize("shape", [(28, 28, 1), (30, 50, 1), (300, 200, 1), (1, 200, 1)])
@pytest.mark.parametrize("noise", [0, 6, 60, 300])
@pytest.mark.parametrize("grey", [0, 77, 255])
def test_nothing_is_drawn_on_a_blank_image(shape, noise, grey):
    rng = np.random.default_rng(0)
    paper = (grey + rng.uniform(-noise, noise, shape)).clip(0, 255).astype(np.uint8)
    assert read_drawing(paper, (28, 28), 20) is None


def test_ink_that_vanishes_when_it_is_scaled_is_not_an_error():
    two_pixels = np.zeros((256, 256, 1), np.uint8)
    two_pixels[0, 0] = two_pixels[-1, -1] = 255
    assert fit_drawing(two_pixels, (64, 64), 2).max() in (0, 255)


@pytest.mark.parametrize("width", [1, 3, 9])
def test_thin_strokes_stay_white(width):
    ink = np.zeros((400, 400, 1), np.uint8)
    ink[50:350, 200 : 200 + width] = 255
    ink[200 : 200 + width, 100:300] = 255
    assert fit_drawing(ink, (28, 28), 20).max() == 255


def test_drawing_box_is_the_size_of_centred_drawings_and_otherwise_0():
    images = like_mnist()
    assert drawing_box(images) == 20
    assert drawing_box(np.roll(images, 3, axis=1)) == 0  # none is centred
    half_moved = images.copy()
    half_moved[::2] = np.roll(half_moved[::2], 2, axis=2)
    assert drawing_box(half_moved) == 0
    assert drawing_box(255 - images) == 0  # dark on light
    assert drawing_box(np.repeat(images, 3, axis=3)) == 0  # RGB
    assert drawing_box(images[:0]) == 0
    assert drawing_box(np.concatenate([images, images[:1] * 0])) == 0  # one is blank
    assert drawing_box(images[:, 4:24, 4:24]) == 0  # the box is the whole image


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A Classifier trained on centred drawings, saved and loaded again."""
    path = tmp_path_factory.mktemp("classifier") / "model.npz"
    model = ViT(ViTConfig(28, 7, 1, 2, width=8, depth=1, heads=2, mlp_width=8))
    train = make_dataset("x", like_mnist(), np.arange(30) % 2, ("a", "b"))
    Classifier.of(model, model.init(), train).save(path)
    return Classifier.load(path)


def test_a_classifier_fits_drawings_to_its_training_images(classifier, tmp_path):
    assert classifier.box == 20
    trained_on = like_mnist()[3]
    drawn = 255 - pad(stroke(3), 60, 5, 3, 90)[..., 0]
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    pixels, remark = classifier.read_image(tmp_path / "drawn.png")
    assert remark == "133x105 fitted into 28x28, inverted: it was dark on light, centred"
    assert are_similar(pixels, trained_on)
    for paper, pen in ((120, 20), (160, 250), (90, 200), (255, 150)):
        grey = np.where(drawn < 128, pen, paper).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "grey.png")
        pixels, remark = classifier.read_image(tmp_path / "grey.png")
        assert are_similar(pixels, trained_on)
        assert ("inverted" in remark) == (pen < paper)


def test_a_classifier_of_drawings_refuses_a_blank_image(classifier, tmp_path):
    Image.new("L", (90, 70), 255).save(tmp_path / "blank.png")
    with pytest.raises(UserError, match=r"blank\.png: nothing is drawn on it"):
        classifier.read_image(tmp_path / "blank.png")


def test_an_image_of_the_models_size_is_centred_only_if_it_is_not(classifier, tmp_path):
    prepared = like_mnist()[3]
    for name, image in (("light", prepared), ("dark", 255 - prepared)):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{name}.png")
    pixels, remark = classifier.read_image(tmp_path / "light.png")
    assert remark == "28x28"
    assert np.array_equal(pixels, prepared)
    pixels, remark = classifier.read_image(tmp_path / "dark.png")
    assert remark == "28x28, inverted: it was dark on light"
    assert np.array_equal(pixels, prepared)
    small = fit_drawing(pad(stroke(3), 9, 9, 9, 9), (16, 16), 12)
    Image.fromarray(pad(small, 1, 11, 10, 2)[..., 0]).save(tmp_path / "corner.png")
    pixels, remark = classifier.read_image(tmp_path / "corner.png")
    assert remark == "28x28, centred"
    assert are_similar(pixels, prepared)
