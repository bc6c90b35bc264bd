import dataclasses

import numpy as np
import pytest
from PIL import Image

from numpyvit import data
from numpyvit.cli.main import main
from numpyvit.look.pictures import GAP, SIDE, batch_picture, tile, to_pixels
from numpyvit.train.recipes import recipes


def some(H, W, C, n=100):
    return data.make_dataset(
        "some", np.random.default_rng(0).integers(0, 256, (n, H, W, C), np.uint8), np.arange(n) % 3
    )


@pytest.mark.parametrize(
    ("H", "W", "C"), [(8, 8, 1), (32, 32, 3), (20, 50, 3), (64, 64, 3), (9, 9, 2)]
)
def test_the_picture_shows_the_batch_that_training_sees(H, W, C):
    train, recipe = (
        some(H, W, C),
        dataclasses.replace(
            recipes["own"], batch_size=24, rotate=0, scale=0, translate=0, flip=True
        ),
    )
    picture = np.asarray(batch_picture(train, recipe, seed=3))
    zoom = max(1, round(48 / max(H, W)))
    assert picture.shape == (SIDE * (H + GAP) * zoom, (2 * SIDE * (W + GAP) + 4 * GAP) * zoom, 3)
    small = picture[::zoom, ::zoom]
    images = np.concatenate([x for x, _ in data.batches(train, 24, 1, seed=3, augment=data.flip())])
    right = small[:, SIDE * (W + GAP) + 4 * GAP :]
    for i in (0, 9, 63):
        y, x = (i // SIDE) * (H + GAP), (i % SIDE) * (W + GAP)
        wanted = np.round(255 * (images[i] * train.std + train.mean))
        assert np.abs(right[y : y + H, x : x + W, :1] - wanted[..., :1]).max() <= 0
    mirrored = [
        np.array_equal(small[y : y + H, x : x + W], right[y : y + H, x : x + W][:, ::-1])
        for y, x in ((r * (H + GAP), c * (W + GAP)) for r in range(SIDE) for c in range(SIDE))
    ]
    assert 15 < sum(mirrored) < 50  # on the left they are as they were


def test_to_pixels_is_the_inverse_of_normalise():
    train = some(5, 4, 3)
    assert np.array_equal(
        to_pixels(data.normalise(train.images, train.mean, train.std), train), train.images
    )


def test_fewer_images_than_places():
    sheet = tile(np.zeros((10, 4, 4, 3), np.uint8))
    assert sheet.shape == (2 * (4 + GAP), SIDE * (4 + GAP), 3)
    assert (sheet[4 + GAP :, 2 * (4 + GAP) :] == 128).all()


def test_the_command(tmp_path, capsys):
    drawn = []
    for seed in "01":
        out = tmp_path / f"{seed}.png"
        options = [
            "--randaugment",
            "2",
            "--mixup",
            "0.5",
            "--val",
            "0.1",
            "--batch-size",
            "24",
            "--seed",
            seed,
        ]
        assert main(["augment", *options, "--out", str(out)]) == 0
        assert "on the right what training sees" in capsys.readouterr().out
        drawn.append(Image.open(out).convert("RGB").tobytes())
    assert drawn[0] != drawn[1]
    assert main(["augment", "--out", str(out)]) == 2  # what is there stays
    assert Image.open(out).convert("RGB").tobytes() == drawn[1]


def test_the_picture_is_the_same_on_both_devices(cupy):
    train, recipe = (
        some(8, 6, 3),
        dataclasses.replace(recipes["own"], batch_size=24, flip=True, randaugment=2, cutmix=1.0),
    )
    here, there = (
        np.asarray(batch_picture(train.to(device), recipe, 1)).astype(int)
        for device in ("cpu", "cuda")
    )
    assert abs(here - there).max() <= 1
    assert (here == there).mean() > 0.99
