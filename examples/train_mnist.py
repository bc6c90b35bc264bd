"""Train on MNIST with the library's parts, in an explicit loop to read and to change.

    python examples/train_mnist.py                 # downloads MNIST if it is missing
    python examples/train_mnist.py --limit 6000    # a quick try on a tenth of the images

The 8 epochs take about a minute and a half on two cores and end at about 99.2 % on the test
set. `numpyvit train --data mnist` does the same, and adds a progress bar, a log and checkpoints
from which an interrupted run is resumed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

import numpyvit as nv

BATCH_SIZE = 128


def main(argv: Sequence[str] | None = None) -> None:
    """Train a model, print a line for each epoch, and save mnist.npz."""
    parser = argparse.ArgumentParser(description="Train a small ViT on MNIST.")
    parser.add_argument("--data-dir", help="the folder that contains, or will contain, mnist/")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training set")
    parser.add_argument("--seed", type=int, default=0, help="the seed of all randomness")
    parser.add_argument("--limit", type=int, help="use only the first LIMIT training images")
    args = parser.parse_args(argv)
    if args.epochs < 1 or (args.limit is not None and args.limit < 1):
        parser.error("--epochs and --limit must be 1 or more")

    # The data: images (n, 28, 28, 1) uint8, labels (n,), and the mean and standard deviation of
    # the training images, with which both sets are normalised.
    train, test = nv.data.mnist(args.data_dir)
    if args.limit is not None:
        train = train.take(np.arange(min(args.limit, len(train))))

    # The model is only a structure: patches of 7x7, so 16 patches and a class token; width 64,
    # 3 blocks. Its weights are one flat array, `params`, with a view for each of them.
    model = nv.ViT(nv.presets["mnist"])
    params = model.init(args.seed)
    print(f"{len(train):,} training and {len(test):,} test images, {model.count():,} weights")

    # Muon makes the update of each matrix orthogonal, and treats all other weights as AdamW does.
    # average=0.998 keeps a running average of the weights, which does better than the last ones.
    optimizer = nv.Muon(params, betas=(0.9, 0.98), weight_decay=0.1, average=0.998)

    # The learning rate rises over one epoch (at most a fifth of the run), and then falls to 0
    # along a cosine.
    epoch_steps = nv.data.steps_per_epoch(len(train), BATCH_SIZE)
    steps = args.epochs * epoch_steps
    schedule = nv.warmup_cosine(peak=5e-3, warmup=min(epoch_steps, steps // 5), steps=steps)

    # Each image is rotated by up to 10 degrees, resized by up to a tenth and translated by up to
    # a pixel. Batches are normalised float32 images (B, 28, 28, 1) and labels (B,), in a new
    # order in each epoch.
    augment = nv.data.affine(10, 0.1, 1)
    batches = nv.data.batches(train, BATCH_SIZE, args.epochs, args.seed, augment)

    # Label smoothing: the target is 0.95 for the right class, plus 0.05 spread over all classes.
    loss_function = partial(nv.cross_entropy, smoothing=0.05)

    # Workers cut each batch into micro-batches, run them forward and backward on threads, and
    # add up the gradients. The result has the same bits with any number of threads.
    with nv.Workers(model, loss_function, args.seed) as workers:
        start = time.perf_counter()
        loss_sum = 0.0
        for step, (images, labels) in enumerate(batches):
            loss, grads = workers.loss_and_grad(params, images, labels, step)
            # clip: the norm of all gradients together is at most 1. map: Muon updates several
            # matrices at the same time, on the threads of the workers.
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

    # A Classifier is the model with its weights, the normalisation and the names of the classes.
    nv.Classifier.of(model, optimizer.average, train).save("mnist.npz")
    print("saved mnist.npz; to use it: numpyvit predict mnist.npz IMAGE...")


if __name__ == "__main__":
    try:
        main()
    except nv.UserError as error:
        sys.exit(f"error: {error}")
