from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from numpyvit import Buffer, Classifier, UserError, ViT, ViTConfig, data
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


def random_images(n, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 6, channels), np.uint8)


def test_a_loaded_classifier_predicts_the_same(tmp_path):
    classifier = make()
    classifier.save(tmp_path / "model.npz")
    loaded = Classifier.load(tmp_path / "model.npz")
    assert loaded.config == classifier.config
    assert loaded.classes == ("a", "b", "ü")
    p = classifier.predict(random_images(5))
    assert np.array_equal(loaded.predict(random_images(5)), p)
    assert p.shape == (5, 3)
    assert np.allclose(p.sum(1), 1)
    x = ((random_images(5) / 255 - 0.4) / 0.3).astype(np.float32)
    logits = classifier.model.forward(classifier.params, x)[0]
    assert np.array_equal(p.argmax(1), logits.argmax(1))
    assert classifier.predict(random_images(0)).shape == (0, 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (random_images(2).transpose(0, 3, 1, 2), "channels-first"),
        (random_images(2, channels=3), r"shape \(2, 8, 6, 3\), the model needs \(B, 8, 6, 1\)"),
        (random_images(2)[0], "the model needs"),
        (random_images(2) / 255, "images are float64, wanted uint8"),
        (random_images(2).astype(int), "images are int64, wanted uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused(bad, message):
    with pytest.raises(UserError, match=message):
        make().predict(bad)


class SquaredReLU:
    def forward(self, params, x):
        return np.maximum(x, 0) ** 2, x

    def backward(self, dy, x, grads):
        return 2 * dy * np.maximum(x, 0)


class Identity:
    def forward(self, params, x):
        return x, None


def exchange_gelu(model):
    for block in model.blocks:
        block.mlp.gelu = SquaredReLU()


def replace_forward(model):
    model.norm.forward = lambda params, x: (x, None)


def share_blocks(model):
    model.blocks[1] = model.blocks[0]


def swap_heads(model):
    model.blocks[0].attention.heads = 1


def add_layer(model):
    model.extra = SquaredReLU()


def remove_block(model):
    del model.blocks[0]


@pytest.mark.parametrize(
    ("change_model", "where"),
    [
        (exchange_gelu, "blocks.0.mlp.gelu is SquaredReLU, there it is GELU"),
        (replace_forward, "norm.forward is .*, there it is 'missing'"),
        (share_blocks, "a weight occurs twice"),
        (swap_heads, "blocks.0.attention.heads is 1, there it is 2"),
        (add_layer, "extra is SquaredReLU, there it is 'missing'"),
        (remove_block, "blocks.2 is 'missing', there it is Block"),
        (lambda model: setattr(model.norm, "eps", 0.1), "norm.eps is 0.1, there it is 1e-06"),
        (lambda model: setattr(model.norm, "eps", np.ones(3)), "norm.eps is an array"),
    ],
)
def test_a_model_that_would_load_as_another_one_is_not_saved(tmp_path, change_model, where):
    config = ViTConfig((8, 6), 2, 1, 3, width=8, depth=3, heads=2, mlp_width=8, pooling="mean")
    model = ViT(config)
    change_model(model)
    classifier = Classifier(model, model.init(), np.ones(1), np.ones(1), ("a", "b", "c"))
    with pytest.raises(UserError, match=f"which is another model than this one .*{where}"):
        classifier.save(tmp_path / "model.npz")
    assert not (tmp_path / "model.npz").exists()


def test_a_subclass_of_vit_is_not_saved(tmp_path):
    class MyViT(ViT):
        pass

    model = MyViT(make().config)
    classifier = replace(make(), model=model, params=model.init())
    with pytest.raises(UserError, match="the model is MyViT, there it is ViT"):
        classifier.save(tmp_path / "model.npz")


@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_model_without_shortcuts_can_be_saved(tmp_path, shortcuts):
    classifier = make()
    model = ViT(classifier.config, shortcuts)
    params = Buffer(model.params, classifier.params.flat)
    replace(classifier, model=model, params=params).save(tmp_path / "model.npz")
    p = classifier.predict(random_images(5))
    assert np.allclose(Classifier.load(tmp_path / "model.npz").predict(random_images(5)), p)


def test_weights_of_another_model_are_refused():
    classifier = make()
    with pytest.raises(UserError, match="the weights of another model"):
        replace(classifier, params=make().params)


def test_the_weights_of_a_changed_model_are_those_of_its_layers():
    model = ViT(ViTConfig())
    before = model.count()
    for block in model.blocks:
        block.norm1 = Identity()
    assert model.count() == model.init().flat.size == before - 4 * 2 * 64
    assert "blocks.0.norm1.gamma" not in model.params


def change(note=None, arrays=None, drop=()):
    """Return a function that changes and drops parts of a saved (note, arrays)."""

    def apply(n, a):
        n = {**n, **(note or {})}
        a = {**a, **(arrays or {})}
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
    with pytest.raises(UserError, match="does not contain a complete classifier"):
        Classifier.load(path)


def test_a_file_of_version_0_2_has_no_box(tmp_path):
    path = tmp_path / "model.npz"
    make().save(path)
    save_npz(path, KIND, *change(drop=["box"])(*load_npz(path, KIND)))
    assert Classifier.load(path).box == 0


def test_weights_that_are_not_finite_are_refused(tmp_path):
    classifier = make()
    classifier.params.flat[3] = np.inf
    classifier.save(tmp_path / "model.npz")
    with pytest.raises(UserError, match="must be finite floats"):
        Classifier.load(tmp_path / "model.npz")


def drawing(mode, background, ink, size=(60, 80)):
    """Return an image of a bar in the middle of an even background."""
    image = Image.new(mode, size, background)
    image.paste(ink, (24, 16, 36, 64))
    return image


WHITE_ON_BLACK = np.asarray(drawing("L", 0, 255))
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
    "deep.png": Image.fromarray((WHITE_ON_BLACK * np.uint16(257)).astype(np.uint16)),
    "unit.tiff": Image.fromarray((WHITE_ON_BLACK / 255).astype(np.float32)),
    "float.tiff": Image.fromarray(WHITE_ON_BLACK.astype(np.float32)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_becomes_light_on_dark(tmp_path, name):
    FILES[name].save(tmp_path / name)
    pixels, remark = make().read_image(tmp_path / name)
    assert pixels.shape == (8, 6, 1)
    assert pixels.dtype == np.uint8
    assert pixels[0].max() < 30
    assert pixels[4, 2:4].min() > 140
    was_light_on_dark = name in ("grey.png", "deep.png", "unit.tiff", "float.tiff")
    assert ("inverted: it was dark on light" in remark) != was_light_on_dark
    assert remark.startswith("60x80 fitted into 6x8")
    was_transparent = name in ("clear.png", "grey_alpha.png")
    assert ("transparency replaced by white" in remark) == was_transparent


def test_a_dark_16_bit_image_stays_dark(tmp_path):
    Image.fromarray(np.full((8, 6), 200, np.uint16)).save(tmp_path / "deep.png")
    assert make().read_image(tmp_path / "deep.png")[0].max() == 1


def test_the_first_of_several_frames_is_used(tmp_path):
    frames = [drawing("L", 0, 255), drawing("L", 255, 0)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    pixels, remark = make().read_image(tmp_path / "two.gif")
    assert "first of several frames" in remark
    assert pixels[4, 2:4].min() > 140


def test_pillows_warnings_are_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # Pillow refuses twice as many pixels
    FILES["grey.png"].save(tmp_path / "x.png")
    make().read_image(tmp_path / "x.png")
    drawing("L", 0, 255, (100, 100)).save(tmp_path / "y.png")
    with pytest.raises(UserError, match="decompression bomb"):
        make().read_image(tmp_path / "y.png")


def test_a_model_trained_on_dark_on_light(tmp_path):
    drawing("L", 0, 255).save(tmp_path / "x.png")
    pixels, remark = make(background=255.0).read_image(tmp_path / "x.png")
    assert pixels[0].min() > 220
    assert "inverted: it was light on dark" in remark


def test_colour_images_are_not_inverted(tmp_path):
    drawing("RGB", (200, 10, 30), (0, 250, 0)).save(tmp_path / "x.png")
    pixels, remark = make(channels=3).read_image(tmp_path / "x.png")
    assert pixels.shape == (8, 6, 3)
    assert np.allclose(pixels[0, 0].astype(int), (200, 10, 30), atol=3)
    assert "inverted" not in remark


def test_a_narrow_image_keeps_its_proportions(tmp_path):
    tall = Image.new("L", (10, 80), 255)
    tall.save(tmp_path / "tall.png")
    pixels, _ = make().read_image(tmp_path / "tall.png")
    assert pixels.shape == (8, 6, 1)


def test_an_image_is_rotated_as_its_exif_data_says(tmp_path):
    classifier = make()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    FILES["grey.png"].rotate(90, expand=True).save(tmp_path / "rotated.jpg", exif=exif)
    upright, _ = classifier.read_image(tmp_path / "rotated.jpg")
    FILES["grey.png"].save(tmp_path / "grey.png")
    expected, _ = classifier.read_image(tmp_path / "grey.png")
    assert np.allclose(upright.astype(int), expected, atol=12)


def test_an_image_of_the_models_size_is_not_changed(tmp_path):
    pixels = random_images(1)[0]
    pixels[0] = pixels[-1] = 0
    Image.fromarray(pixels[..., 0]).save(tmp_path / "x.png")
    found, remark = make().read_image(tmp_path / "x.png")
    assert np.array_equal(found, pixels)
    assert remark == "6x8"


def test_files_that_are_not_images_raise_one_line(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    FILES["colour.png"].save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
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


def test_the_background_of_the_digits_is_black():
    train, _ = data.digits()
    model = ViT(ViTConfig(8, 4))
    assert Classifier.of(model, model.init(), train).background == 0
