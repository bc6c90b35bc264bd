"""CIFAR-10 from the library's parts: train_mnist.py's loop with a wider model and crops and flips.

    python examples/train_cifar10.py [DIR [EPOCHS]]     (DIR/cifar10 holds it; without DIR it is fetched, once)

6 epochs, where EPOCHS is not given: about 61 % on the test set after 13 minutes on two cores. The command
`numpyvit train --data cifar10` does the same, with a progress bar, checkpoints and a log.
"""

import sys
import time

import numpyvit as nv

BATCH, SEED = 128, 0


def main(data_dir: str | None = None, epochs: int = 6) -> None:
    train, test = nv.data.cifar10(data_dir)
    model = nv.ViT(nv.presets["cifar10"])                    # patches of 4x4, width 128, 6 blocks: 811 thousand weights
    params = model.init(SEED)
    optimizer = nv.AdamW(params, weight_decay=0.05)
    epoch_steps = nv.data.steps_per_epoch(len(train), BATCH)
    schedule = nv.warmup_cosine(peak=2e-3, warmup=epoch_steps, steps=epochs * epoch_steps)
    augment = nv.data.compose(nv.data.flip(), nv.data.shift(4))
    batches = nv.data.batches(train, BATCH, epochs, SEED, augment)

    with nv.Workers(model, seed=SEED) as workers:
        began = time.perf_counter()
        for step, (images, labels) in enumerate(batches):
            loss, grads = workers.loss_and_grad(params, images, labels, step)
            optimizer.step(params, grads, lr=schedule(step), clip=1.0)
            if (step + 1) % epoch_steps == 0:
                accuracy = nv.accuracy(workers.predict(params, test), test.labels)
                print(f"epoch {(step + 1) // epoch_steps}  loss {loss:.3f}  test accuracy {accuracy:.2%}  "
                      f"{time.perf_counter() - began:.0f} s", flush=True)

    nv.Classifier.of(model, params, train).save("cifar10.npz")
    print("saved cifar10.npz: numpyvit predict cifar10.npz IMAGE...")


if __name__ == "__main__":
    if len(sys.argv) > 3 or not all(epochs.isdecimal() for epochs in sys.argv[2:]):
        sys.exit(__doc__)
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else None, *map(int, sys.argv[2:]))
    except nv.UserError as error:
        sys.exit(f"error: {error}")
