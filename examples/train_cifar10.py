"""Train on CIFAR-10 with the library's parts, in an explicit loop to read and to change.

    python examples/train_cifar10.py               # downloads CIFAR-10 if it is missing
    python examples/train_cifar10.py --limit 5000 --epochs 5    # a quick try

The 26 epochs take about half an hour on two cores and end at about 85 % on the test set.
`numpyvit train --data cifar10` does the same, and adds a progress bar, a log and checkpoints
from which an interrupted run is resumed. examples/train_mnist.py is the simpler loop: read it
first. New here are patch dropout and mirrored images.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

import numpyvit as nv

BATCH_SIZE = 128
PATCHES = 16  # the patches of each image that take part in most steps, of 64
FULL_PATCHES = 0.15  # the last fraction of the run, in which all of them take part


def main(argv: Sequence[str] | None = None) -> None:
    """Train a model, print a line for each epoch, and save cifar10.npz."""
    parser = argparse.ArgumentParser(description="Train a small ViT on CIFAR-10.")
    parser.add_argument("--data-dir", help="the folder that contains, or will contain, cifar10/")
    parser.add_argument("--epochs", type=int, default=26, help="passes over the training set")
    parser.add_argument("--seed", type=int, default=0, help="the seed of all randomness")
    parser.add_argument("--limit", type=int, help="use only the first LIMIT training images")
    args = parser.parse_args(argv)
    if args.epochs < 1 or (args.limit is not None and args.limit < 1):
        parser.error("--epochs and --limit must be 1 or more")

    # The data: images (n, 32, 32, 3) uint8 and labels (n,).
    train, test = nv.data.cifar10(args.data_dir)
    if args.limit is not None:
        train = train.take(np.arange(min(args.limit, len(train))))

    # The model: 64 patches of 4x4, width 128, 6 blocks. Rotary positions tell attention how far
    # apart two patches are. There is no class token; the head reads the mean over the tokens.
    model = nv.ViT(nv.presets["cifar10"])
    params = model.init(args.seed)
    print(f"{len(train):,} training and {len(test):,} test images, {model.count():,} weights")

    # Weight decay is strong, because the model could learn 50,000 images by heart.
    optimizer = nv.Muon(params, betas=(0.9, 0.98), weight_decay=0.2, average=0.998)

    # The learning rate rises over one epoch (at most a fifth of the run), and then falls to 0
    # along a cosine.
    epoch_steps = nv.data.steps_per_epoch(len(train), BATCH_SIZE)
    steps = args.epochs * epoch_steps
    schedule = nv.warmup_cosine(peak=5e-3, warmup=min(epoch_steps, steps // 5), steps=steps)

    # Half of the images are mirrored, and each is translated by up to 4 pixels.
    augment = nv.data.compose(nv.data.flip(), nv.data.shift(4))
    batches = nv.data.batches(train, BATCH_SIZE, args.epochs, args.seed, augment)

    # Micro-batches of 32 images: the default is meant for images with all of their patches, and
    # would be small for a quarter of them.
    loss_function = partial(nv.cross_entropy, smoothing=0.05)
    with nv.Workers(model, loss_function, args.seed, micro_batch=32) as workers:
        start = time.perf_counter()
        loss_sum = 0.0
        for step, (images, labels) in enumerate(batches):
            # Patch dropout: each image is seen through a random quarter of its patches, so that
            # a step takes a fraction of the time and no image looks the same twice. Evaluation
            # uses all patches, and so do the last steps, to get used to them.
            full = step >= (1 - FULL_PATCHES) * steps
            loss, grads = workers.loss_and_grad(
                params, images, labels, step, patches=None if full else PATCHES
            )
            optimizer.step(params, grads, schedule(step), clip=1.0, map=workers.map)
            loss_sum += loss

            if (step + 1) % epoch_steps == 0:
                logits = workers.predict(optimizer.average, test)
                accuracy = nv.accuracy(logits, test.labels)
                print(
                    f"epoch {(step + 1) // epoch_steps}  train loss {loss_sum / epoch_steps:.4f}  "
                    f"test accuracy {accuracy:.2%}  {time.perf_counter() - start:.0f} s",
                    flush=True,
                )
                loss_sum = 0.0

    nv.Classifier.of(model, optimizer.average, train).save("cifar10.npz")
    print("saved cifar10.npz; to use it: numpyvit predict cifar10.npz IMAGE...")


if __name__ == "__main__":
    try:
        main()
    except nv.UserError as error:
        sys.exit(f"error: {error}")
