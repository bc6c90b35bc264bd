"""Train on your own images, with a model, an augmentation and a loss of your own.

    python examples/own_training_loop.py      # about two seconds

The digits that ship with the package stand in for your images. Each of the four parts can be
replaced alone; the loop at the end remains as it is.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import numpyvit as nv
from numpyvit.gradcheck import check_function

Array = np.ndarray
BATCH_SIZE = 32
EPOCHS = 8


# Part 1: the images.
#
# Two arrays are enough: images (n, H, W) or (n, H, W, C) uint8, and labels (n,) from 0. For a
# folder of image files it is one line: train, test = nv.data.folder("PHOTOS", size=(64, 64)).


def load() -> tuple[nv.data.Dataset, nv.data.Dataset]:
    """Return a training set, and a test set that is normalised like it."""
    digits, more_digits = nv.data.digits()
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    train = nv.data.make_dataset("mine", digits.images, digits.labels, names)
    test = nv.data.make_dataset("mine", more_digits.images, more_digits.labels, like=train)
    return train, test


# Part 2: the model.
#
# The patches must divide the images, the heads the width, and the numbers of channels and classes
# are those of the images. help(nv.ViTConfig) describes all options.


def make_config(train: nv.data.Dataset) -> nv.ViTConfig:
    """Return a small model; images of 8x8 become four patches of 4x4 pixels."""
    _, H, _, C = train.images.shape
    return nv.ViTConfig(
        image_size=H,
        patch_size=4,
        channels=C,
        classes=len(train.classes),
        width=32,
        depth=2,
        heads=4,
        mlp_width=64,
        pooling="mean",
    )


# Part 3: the augmentation.
#
# It is given a batch of images (B, H, W, C) uint8 and a random generator, and returns new images
# of the same shape and dtype. All randomness must come from the generator: then a training with
# the same seed is the same.


def darken(images: Array, rng: np.random.Generator) -> Array:
    """Multiply each image by a factor from 0.7 to 1."""
    factors = rng.uniform(0.7, 1.0, size=(len(images), 1, 1, 1))
    return (images * factors).astype(np.uint8)


# Part 4: the loss.
#
# It is given logits (B, K) and labels (B,), and returns the loss and dlogits (B, K), the gradient
# of the loss with respect to the logits. Workers cut a batch into micro-batches and add up what
# the loss returns for each; therefore it is the sum over the images that it is given, divided by
# `count`, the number of images in the whole batch.
#
# The focal loss (Lin et al., 2017) pays less attention to images that are already classified
# well. With the softmax q of the logits x, and p = q_y the probability of the label y:
#
#     loss = -(1 - p)^g ln p,          ∂p/∂x_k = p ([k = y] - q_k),
#     p ∂loss/∂p = g (1 - p)^(g - 1) p ln p - (1 - p)^g.


def focal_loss(
    logits: Array, labels: Array, *, count: int, focus: float = 2.0
) -> tuple[Any, Array]:
    """logits (B, K), labels (B,)  ->  loss, dlogits (B, K)."""
    shifted = logits - logits.max(-1, keepdims=True)  # so that exp does not overflow
    log_q = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    q = np.exp(log_q)
    rows = np.arange(len(labels))
    p, log_p = q[rows, labels], log_q[rows, labels]
    loss = -((1 - p) ** focus * log_p).sum() / count
    slope = focus * (1 - p) ** (focus - 1) * p * log_p - (1 - p) ** focus  # p ∂loss/∂p
    dlogits = -q * slope[:, None]
    dlogits[rows, labels] += slope
    return loss, dlogits / count


def check_loss() -> None:
    """Compare the gradient of the loss with numerical differences, and print the result."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5))
    loss = partial(focal_loss, labels=rng.integers(0, 5, 4), count=4)

    def backward(dloss: Array, dlogits: Array) -> Array:
        return dloss * dlogits

    print(check_function(loss, backward, logits, names=["logits"]))


# The loop.


def main(argv: Sequence[str] | None = None) -> None:
    """Check the loss, train a model, save it as mine.npz, and classify an image with it."""
    if sys.argv[1:] if argv is None else argv:
        sys.exit("this example has no options: change the code")
    check_loss()
    train, test = load()
    model = nv.ViT(make_config(train))
    params = model.init(seed=0)
    optimizer = nv.AdamW(params, weight_decay=0.05)
    epoch_steps = nv.data.steps_per_epoch(len(train), BATCH_SIZE)
    schedule = nv.warmup_cosine(peak=1e-2, warmup=epoch_steps, steps=EPOCHS * epoch_steps)
    augment = nv.data.compose(darken, nv.data.affine(10, 0.1, 0.5))
    batches = nv.data.batches(train, BATCH_SIZE, EPOCHS, seed=0, augment=augment)
    with nv.Workers(model, focal_loss, seed=0) as workers:
        for step, (images, labels) in enumerate(batches):
            loss, grads = workers.loss_and_grad(params, images, labels, step)
            optimizer.step(params, grads, schedule(step), clip=1.0)
            if (step + 1) % epoch_steps == 0:
                accuracy = nv.accuracy(workers.predict(params, test), test.labels)
                print(f"step {step + 1}  loss {loss:.4f}  test accuracy {accuracy:.2%}")

    nv.Classifier.of(model, params, train).save("mine.npz")
    classifier = nv.Classifier.load("mine.npz")
    p = classifier.predict(test.images[:1])[0]
    print(f"an image of {test.classes[test.labels[0]]}: {classifier.classes[p.argmax()]}")


if __name__ == "__main__":
    try:
        main()
    except nv.UserError as error:
        sys.exit(f"error: {error}")
