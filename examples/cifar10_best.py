"""CIFAR-10 in an hour and more: 86.38 % on the test set, by 803 thousand weights and nothing but patches and products.

    python examples/cifar10_best.py --data-dir DIR          (DIR/cifar10 holds it; without, it is fetched, once)

65 minutes, evaluation after each epoch included, on two cores of a shared server; benchmarks/logs/cifar10-best has
the log. `numpyvit train --recipe cifar10-best` is the same, and takes the same options. It can be stopped by Ctrl-C
at any time, and goes on with `numpyvit train --resume RUN`.

Three quarters of the patches are left out until the last quarter of the run, so that an epoch takes a third of the
time, and Muon makes more of each step than AdamW. Rotary positions tell attention how far apart two patches are, which
it would else have to learn. `python benchmarks/ingredients.py` measures what each ingredient gives.
"""

import sys

from numpyvit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "--recipe", "cifar10-best", *sys.argv[1:]]))
