import shutil
import time

import numpy as np
import pytest
from PIL import Image

from numpyvit import UserError, data
from numpyvit.data import folder, image, image_folder, make_dataset, npz
from numpyvit.data.image_folder import list_images


def save_image(path, colour=(200, 30, 60), size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


def ignore(line):
    pass


def test_a_folder_of_classes(tmp_path):
    for i in range(10):
        save_image(tmp_path / "red" / f"{i}.png", (250, 0, 0))
        save_image(tmp_path / "Blue" / f"{i}.jpg", (0, 0, 250))
    (tmp_path / "red" / "notes.txt").write_text("hello")
    (tmp_path / "red" / ".hidden").write_text("hello")
    (tmp_path / ".git").mkdir()
    messages = []
    train, test = folder(tmp_path, (16, 20), 0.3, messages.append)
    assert (train.classes, len(train), len(test)) == (("Blue", "red"), 14, 6)
    assert train.images.shape[1:] == (16, 20, 3)
    assert (train.images[train.labels == 1].mean((0, 1, 2)) > 200).tolist() == [True, False, False]
    assert np.bincount(test.labels).tolist() == [3, 3]
    notes = tmp_path / "red" / "notes.txt"
    assert messages == [f"{tmp_path}: skipped files that are not images (1, e.g. {notes})"]
    assert np.array_equal(train.mean, data.dataset.moments(train.images)[0])
    again = folder(tmp_path, (16, 20), 0.3, ignore)
    assert np.array_equal(again[1].images, test.images)


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_a_train_and_a_test_folder(tmp_path, name):
    for i in range(3):
        for of_class in "ab":
            save_image(tmp_path / "train" / of_class / f"{i}.png")
        save_image(tmp_path / name / "b" / f"{i}.png", (0, 0, 0))
    train, test = folder(tmp_path, (8, 8))
    assert (len(train), len(test)) == (6, 3)
    assert test.labels.tolist() == [1, 1, 1]
    assert np.array_equal(test.mean, train.mean)


def test_a_train_folder_alone_is_split_by_the_fraction(tmp_path):
    for i in range(5):
        for of_class in "ab":
            save_image(tmp_path / "train" / of_class / f"{i}.png")
    train, test = folder(tmp_path, (8, 8))
    assert (len(train), len(test)) == (8, 2)


def test_images_are_grey_if_all_files_are(tmp_path):
    for of_class, mode in (("a", "L"), ("b", "1"), ("c", "LA")):
        for i in range(4):
            save_image(tmp_path / of_class / f"{i}.png", mode=mode)
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(tmp_path / "a" / "deep.png")
    assert folder(tmp_path, (8, 8))[0].images.shape[-1] == 1
    save_image(tmp_path / "a" / "colour.png")
    assert folder(tmp_path, (8, 8))[0].images.shape[-1] == 3


def test_folder_names_in_capitals_and_a_class_named_train(tmp_path):
    for part in ("train", "Test", "val"):
        for i in range(2):
            save_image(tmp_path / part / "a" / f"{i}.PNG")
            save_image(tmp_path / part / "b" / f"{i}.jpeg")
    messages = []
    train, test = folder(tmp_path, (8, 8), say=messages.append)
    assert (len(train), len(test)) == (4, 4)
    assert f"skipped {tmp_path / 'val'}: only" in messages[0]
    for name in ("car", "plane", "train"):
        for i in range(5):
            save_image(tmp_path / "vehicles" / name / f"{i}.png")
    train, test = folder(tmp_path / "vehicles", (8, 8))
    assert train.classes == ("car", "plane", "train")
    assert (len(train), len(test)) == (12, 3)


def test_listing_thousands_of_files_is_fast(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(4000):
            (tmp_path / name / f"{i}.png").touch()
    start = time.perf_counter()
    listed = list_images(tmp_path, ignore)
    assert len(listed["a"]) == 4000
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "contains 0 folders of images: wanted at least two, one for each class"),
        (lambda p: save_image(p / "a" / "1.png"), "contains 1 folders of images"),
        (lambda p: save_image(p / "1.png"), "contains 0 folders of images"),
        (
            lambda p: (save_image(p / "a" / "1.png"), (p / "b").mkdir()),
            "b contains no images: wanted one folder for each class",
        ),
        (
            lambda p: [
                save_image(p / part / "1.png")
                for part in ("train/a", "train/b", "test/a", "test/c")
            ],
            "has a folder 'c', but .*train does not",
        ),
        (
            lambda p: [save_image(p / part / "1.png") for part in ("train/a", "train/b")],
            "leaves one part empty",
        ),
        (
            lambda p: (
                save_image(p / "a" / "1.png"),
                (p / "b").mkdir(),
                (p / "b" / "2.png").write_bytes(b"\x89PNG"),
            ),
            r"no image of the class b can be read: .*2.png cannot be read as an image",
        ),
    ],
)
def test_a_folder_of_another_structure_raises_one_line(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        folder(tmp_path, (8, 8), say=ignore)
    assert "\n" not in str(error.value)


def test_postscript_is_not_executed(tmp_path):
    """Pillow would pass it to Ghostscript, a program that executes it."""
    save_image(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(
        UserError, match=r"2.png cannot be read as an image \(its format is unknown"
    ):
        folder(tmp_path, (8, 8))
    shutil.move(tmp_path / "b" / "2.png", tmp_path / "b" / "2.eps")
    messages = []
    save_image(tmp_path / "a" / "2.png")
    save_image(tmp_path / "b" / "3.png")
    folder(tmp_path, (8, 8), 0.5, messages.append)
    assert "2.eps" in messages[0]


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path):
    for i in range(30):
        save_image(tmp_path / "a" / f"{i:02}.png", (i, 0, 0))
        save_image(tmp_path / "b" / f"{i:02}.png", (0, i, 0))
    whole = folder(tmp_path, (8, 8), say=ignore)
    for i in range(12):
        save_image(tmp_path / "b" / f"broken {i:02}.png")
        (tmp_path / "b" / f"broken {i:02}.png").write_bytes(b"\x89PNG")
    (tmp_path / "a" / "vanished.png").symlink_to("nothing")
    messages, left_out = [], []
    sets = folder(tmp_path, (8, 8), say=messages.append, left_out=left_out)
    for part, expected in zip(sets, whole, strict=True):
        assert np.array_equal(part.images, expected.images)
        assert np.array_equal(part.labels, expected.labels)
    assert left_out == messages[1:]
    assert "left out images that cannot be read (12): b/broken 00.png, b/broken 01" in left_out[0]
    assert left_out[0].endswith("b/broken 09.png and 2 more")
    assert "vanished.png" in messages[0]  # a link to nothing is not a file


def test_an_image_that_vanishes_while_the_folder_is_read(tmp_path, monkeypatch):
    for i in range(5):
        for of_class in "ab":
            save_image(tmp_path / of_class / f"{i}.png")
    read = image_folder.read_picture

    def read_and_remove(path, *args):
        (tmp_path / "b" / "3.png").unlink(missing_ok=True)
        return read(path, *args)

    monkeypatch.setattr(image_folder, "read_picture", read_and_remove)
    left_out = []
    train, test = folder(tmp_path, (8, 8), say=ignore, left_out=left_out)
    assert len(train) + len(test) == 9
    assert "b/3.png" in left_out[0]


def test_a_folder_that_does_not_exist_or_does_not_fit_into_memory(tmp_path):
    with pytest.raises(UserError, match="not a folder that exists"):
        folder(tmp_path / "none")
    with pytest.raises(UserError, match="choose a smaller size"):
        image_folder.check_memory(tmp_path, 10**9, (4096, 4096), 3)


def test_a_remark_on_classes_without_images(tmp_path):
    labels = np.arange(5, 33, 3).repeat(4)
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 8, 8), np.uint8), labels=labels)
    messages = []
    data.load(str(tmp_path / "x.npz"), say=messages.append)
    assert "23 of 33 classes have no training images" in messages[0]


def arrays(n=20, **changes):
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (n, 8, 6, 3), np.uint8),
        "labels": np.arange(n) % 4,
        **changes,
    }


def test_an_npz(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays(classes=np.array(list("abcd"))))
    train, test = npz(path, 0.25)
    assert (train.name, train.classes, len(train), len(test)) == ("mine", tuple("abcd"), 16, 4)
    np.savez(
        path,
        x_train=arrays()["images"][..., 0],
        y_train=arrays()["labels"][:, None].astype(np.uint8),
        x_test=arrays(5)["images"][..., 0],
        y_test=arrays(5)["labels"],
    )
    train, test = data.load(str(path))
    assert train.images.shape == (20, 8, 6, 1)
    assert test.labels.tolist() == [0, 1, 2, 3, 0]
    assert train.classes == ("0", "1", "2", "3")
    assert np.array_equal(test.mean, train.mean)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pictures": np.zeros(3)}, "contains pictures: wanted arrays named images and labels"),
        (
            arrays(images=np.zeros((20, 8, 6))),
            r"images are float64, wanted uint8 \(0 to 255\): .*np.round\(255",
        ),
        (
            arrays(images=np.zeros((20, 8, 6), np.int32)),
            r"images are int32, wanted uint8 \(0 to 255\): .*images.astype",
        ),
        (
            arrays(images=np.zeros((20, 48), np.uint8)),
            r"images have shape \(20, 48\), wanted \(n, H, W\)",
        ),
        (arrays(images=np.zeros((20, 3, 32, 32), np.uint8)), "look channels-first"),
        (arrays(images=np.zeros((0, 8, 8, 3), np.uint8)), "there are no images"),
        (arrays(images=np.zeros((20, 8, 0, 3), np.uint8)), "images have shape"),
        (arrays(labels=np.arange(19) % 4), "20 images but 19 labels"),
        (arrays(labels=np.arange(20) % 4 - 1), "labels go from -1 to 2"),
        (arrays(labels=np.zeros(20)), "labels are float64 of shape"),
        (
            arrays(labels=np.eye(20, 4, dtype=int)),
            r"labels are int64 of shape \(20, 4\), wanted integers",
        ),
        (arrays(classes=np.array(["a", "b"])), "labels go from 0 to 3, wanted 0 to 1"),
        (arrays(classes=np.arange(4)), "classes must be an array of strings"),
        (
            arrays(test_images=np.zeros((3, 8, 6, 3), np.uint8)),
            "contains only one of test_images and test_labels",
        ),
        (
            arrays(test_images=np.zeros((3, 8, 8, 3), np.uint8), test_labels=np.zeros(3, int)),
            r"test images have shape \(8, 8, 3\)",
        ),
        (
            arrays(test_images=np.zeros((3, 8, 6, 3), np.uint8), test_labels=np.full(3, 7)),
            "labels go from 7 to 7",
        ),
        (arrays(images=np.array([None] * 20)), "unpickling can run code"),
        (
            arrays(labels=np.array([0, 30_000_000] * 10)),
            "labels go up to 30000000, but there are 20 images",
        ),
        (
            arrays(labels=np.zeros(20, int)),
            "the classes are 0: wanted at least two, with different names",
        ),
        (arrays(classes=np.array(list("abca"))), "wanted at least two, with different names"),
    ],
)
def test_an_npz_of_other_contents_raises_one_line(tmp_path, content, message):
    path = tmp_path / "mine.npz"
    np.savez(path, **content)
    with pytest.raises(UserError, match=message) as error:
        npz(path)
    assert "\n" not in str(error.value)


def test_make_dataset_from_arrays():
    train = make_dataset("mine", np.zeros((3, 4, 4), np.uint8), [0, 2, 1])
    assert train.images.shape == (3, 4, 4, 1)
    assert train.classes == ("0", "1", "2")
    assert train.std[0] > 0


def test_an_image_that_declares_more_pixels_than_its_bytes_can_hold(tmp_path):
    Image.new("P", (300, 300)).save(tmp_path / "x.gif")
    broken = bytearray((tmp_path / "x.gif").read_bytes())
    broken[6:10] = b"\x2c\x31\x2c\x31"  # the size of the screen: 12588 x 12588
    (tmp_path / "x.gif").write_bytes(broken)
    with pytest.raises(UserError, match=r"12,588x12,588 pixels in [\d,]+ bytes: it is damaged"):
        data.read_picture(tmp_path / "x.gif", (8, 8))
    Image.new("RGB", (3840, 2160)).save(tmp_path / "blank.png")
    assert data.read_picture(tmp_path / "blank.png", (8, 8))[1] == "3840x2160 fitted into 8x8"


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "I;16", "F"])
@pytest.mark.parametrize("size", [(900, 700), (1201, 203), (64, 4001)])
def test_a_large_image_in_bands_equals_the_whole_image(mode, size, monkeypatch):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, size[::-1], np.uint8)
    large = {
        "I;16": lambda: Image.fromarray(grey * np.uint16(200)),
        "F": lambda: Image.fromarray(grey / np.float32(300)),
        "P": lambda: Image.fromarray(grey).quantize(200),
    }.get(mode, lambda: Image.fromarray(grey).convert(mode))()
    for to in ("L", "RGB"):
        white = image.white_value(large)
        by = max(1, min(size) // 32)
        expected = image.convert(large, to, white).reduce(by)
        reduced = image.reduce_size(large, to, 32)
        assert np.array_equal(np.asarray(reduced), np.asarray(expected))


def test_transparent_16_bit_grey_becomes_white(tmp_path):
    values = np.array([[0, 65535], [300, 40000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png", transparency=300)
    pixels, remark = data.read_picture(tmp_path / "x.png", (2, 2), 1)
    assert pixels[..., 0].tolist() == [[0, 255], [255, 156]]
    assert "transparency replaced by white" in remark
