import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, UserError, ViT, ViTConfig, data
from numpyvit.classifier import KIND
from numpyvit.storage.archives import load_npz, save_npz
from numpyvit.testing import normal


def make(channels=1, background=0.0, size=(8, 6)):
    model = ViT(ViTConfig(size, 2, channels, 3, width=8, depth=1, heads=2, mlp_width=8))
    params = model.init()
    params.flat += normal(params.flat.shape, 0, np.float32)
    return Classifier(
        model, params, np.full(channels, 0.4), np.full(channels, 0.3), ("a", "b", "ü"), background
    )


def images(n, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 6, channels), np.uint8)


def test_saved_and_loaded_it_predicts_the_same(tmp_path):
    classifier = make()
    classifier.save(tmp_path / "model.npz")
    again = Classifier.load(tmp_path / "model.npz")
    assert again.config == classifier.config
    assert again.classes == ("a", "b", "ü")
    p = classifier.predict(images(5))
    assert np.array_equal(again.predict(images(5)), p)
    assert p.shape == (5, 3)
    assert np.allclose(p.sum(1), 1)
    x = ((images(5) / 255 - 0.4) / 0.3).astype(np.float32)
    logits = classifier.model.forward(classifier.params, x)[0]
    assert np.array_equal(p.argmax(1), logits.argmax(1))
    assert classifier.predict(images(0)).shape == (0, 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (images(2).transpose(0, 3, 1, 2), "channels-first"),
        (images(2, channels=3), r"shape \(2, 8, 6, 3\), the model wants \(B, 8, 6, 1\)"),
        (images(2)[0], "the model wants"),
        (images(2) / 255, "images are float64, wanted uint8"),
        (images(2).astype(int), "images are int64, wanted uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused(bad, message):
    with pytest.raises(UserError, match=message):
        make().predict(bad)


def change(note=None, arrays=None, drop=()):
    def apply(n, a):
        n, a = {**n, **(note or {})}, {**a, **(arrays or {})}
        for name in drop:
            n.pop(name, None)
            a.pop(name, None)
        return n, a

    return apply


@pytest.mark.parametrize(
    "apply",
    [
        change(drop=["weights"]),
        change(drop=["config"]),
        change(drop=["background"]),
        change(note={"classes": ["a"]}),
        change(note={"classes": 3}),
        change(note={"config": {"depth": 0}}),
        change(note={"config": {"dept": 1}}),
        change(note={"config": None}),
        change(arrays={"weights": np.zeros(5, np.float32)}),
        change(arrays={"mean": np.zeros(2)}),
        change(arrays={"std": np.full(1, np.nan)}),
        change(note={"background": "dark"}),
        change(note={"box": 6}),
        change(note={"box": -1}),
        change(note={"box": "x"}),
    ],
)
def test_a_file_with_wrong_parts_is_refused(tmp_path, apply):
    path = tmp_path / "model.npz"
    make().save(path)
    save_npz(path, KIND, *apply(*load_npz(path, KIND)))
    with pytest.raises(UserError, match="does not hold a whole classifier"):
        Classifier.load(path)


def test_a_file_of_version_0_2_has_no_box(tmp_path):
    make().save(tmp_path / "model.npz")
    save_npz(
        tmp_path / "model.npz", KIND, *change(drop=["box"])(*load_npz(tmp_path / "model.npz", KIND))
    )
    assert Classifier.load(tmp_path / "model.npz").box == 0


def test_weights_that_are_not_finite_are_refused(tmp_path):
    classifier = make()
    classifier.params.flat[3] = np.inf
    classifier.save(tmp_path / "model.npz")
    with pytest.raises(UserError, match="must be finite floats"):
        Classifier.load(tmp_path / "model.npz")


def drawing(mode, ground, ink, size=(60, 80)):
    """A bar in the middle of an even ground."""
    image = Image.new(mode, size, ground)
    image.paste(ink, (24, 16, 36, 64))
    return image


FILES = {
    "grey.png": drawing("L", 0, 255),
    "light.png": drawing("L", 255, 0),
    "colour.png": drawing("RGB", "white", "navy"),
    "palette.gif": drawing("RGB", "white", "black").quantize(4),
    "clear.png": drawing("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),
    "grey_alpha.png": drawing("LA", (0, 0), (0, 255)),
    "cmyk.jpg": drawing("CMYK", (0, 0, 0, 0), (0, 0, 0, 255)),
    "bits.png": drawing("1", 1, 0),
    "photo.jpg": drawing("L", 250, 3),
    "deep.png": Image.fromarray(
        (np.asarray(drawing("L", 0, 255)) * np.uint16(257)).astype(np.uint16)
    ),
    "unit.tiff": Image.fromarray((np.asarray(drawing("L", 0, 255)) / 255).astype(np.float32)),
    "float.tiff": Image.fromarray(np.asarray(drawing("L", 0, 255)).astype(np.float32)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_becomes_light_strokes_on_dark(tmp_path, name):
    FILES[name].save(tmp_path / name)
    pixels, remark = make().read_image(tmp_path / name)
    assert pixels.shape == (8, 6, 1)
    assert pixels.dtype == np.uint8
    assert pixels[0].max() < 30
    assert pixels[4, 2:4].min() > 140
    assert ("inverted: it was dark on light" in remark) == (
        name not in ("grey.png", "deep.png", "unit.tiff", "float.tiff")
    )
    assert remark.startswith("60x80 fitted into 6x8")
    assert ("transparency laid on white" in remark) == (name in ("clear.png", "grey_alpha.png"))


def test_a_dark_16_bit_image_is_dark_and_of_many_frames_the_first_counts(tmp_path):
    Image.fromarray(np.full((8, 6), 200, np.uint16)).save(tmp_path / "deep.png")
    assert make().read_image(tmp_path / "deep.png")[0].max() == 1
    frames = [drawing("L", 0, 255), drawing("L", 255, 0)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    pixels, remark = make().read_image(tmp_path / "two.gif")
    assert "first of 2 frames" in remark
    assert pixels[4, 2:4].min() > 140


def test_pillows_warnings_are_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 3000
    )  # 4800 pixels: Pillow warns; more than 6000: refuses
    FILES["grey.png"].save(tmp_path / "x.png")
    make().read_image(tmp_path / "x.png")
    drawing("L", 0, 255, (100, 100)).save(tmp_path / "y.png")
    with pytest.raises(UserError, match="decompression bomb"):
        make().read_image(tmp_path / "y.png")


def test_a_model_of_dark_on_light_gets_that(tmp_path):
    drawing("L", 0, 255).save(tmp_path / "x.png")
    pixels, remark = make(background=255.0).read_image(tmp_path / "x.png")
    assert pixels[0].min() > 220
    assert "inverted: it was light on dark" in remark


def test_colour_stays_and_is_not_inverted(tmp_path):
    drawing("RGB", (200, 10, 30), (0, 250, 0)).save(tmp_path / "x.png")
    pixels, remark = make(channels=3).read_image(tmp_path / "x.png")
    assert pixels.shape == (8, 6, 3)
    assert np.allclose(pixels[0, 0].astype(int), (200, 10, 30), atol=3)
    assert "inverted" not in remark


def test_nothing_is_squashed_or_cut_and_exif_is_heeded(tmp_path):
    tall = Image.new("L", (10, 80), 255)
    tall.save(tmp_path / "tall.png")
    classifier = make()
    pixels, _ = classifier.read_image(tmp_path / "tall.png")
    assert pixels.shape == (8, 6, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    FILES["grey.png"].rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif)
    upright, _ = classifier.read_image(tmp_path / "turned.jpg")
    FILES["grey.png"].save(tmp_path / "grey.png")
    assert np.allclose(
        upright.astype(int), classifier.read_image(tmp_path / "grey.png")[0], atol=12
    )


def test_an_image_of_the_models_size_is_untouched(tmp_path):
    pixels = images(1)[0]
    pixels[0] = pixels[-1] = 0
    Image.fromarray(pixels[..., 0]).save(tmp_path / "x.png")
    found, remark = make().read_image(tmp_path / "x.png")
    assert np.array_equal(found, pixels)
    assert remark == "6x8"


def test_files_that_are_no_images_get_one_line(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    FILES["colour.png"].save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((4, 4), -3.0, np.float32)).save(tmp_path / "below.tiff")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    for name, message in {
        "text.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "none.png": "does not exist",
        "below.tiff": "values go from -3 to -3",
        ".": "is not a file",
        "nan.tiff": "values go from nan",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            make().read_image(tmp_path / name)
        assert "\n" not in str(error.value)


def test_the_digits_have_a_dark_ground():
    train, _ = data.digits()
    model = ViT(ViTConfig(8, 4))
    assert Classifier.of(model, model.init(), train).background == 0
