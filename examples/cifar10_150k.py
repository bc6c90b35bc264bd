"""CIFAR-10 by a model of 146,058 weights: 84.30 % on the test set, in 82 minutes, most of them on one core.

    python examples/cifar10_150k.py --data-dir DIR          (DIR/cifar10 holds it; without, it is fetched, once)

82 minutes, evaluation after each epoch included, on a shared server: the first 69 with `--workers 1`, while its other core
was at work, the rest with two. benchmarks/logs/cifar10-150k has the log. `numpyvit train --recipe cifar10-150k` is the
same, and takes the same options. It can be stopped by Ctrl-C at any time, and goes on with `numpyvit train --resume RUN`.

Width 64, four blocks, patches of 4x4, rotary positions, a mean over the tokens. So small a model has to be trained for
long: 150 epochs. In all but the last 22 of them three quarters of the patches are left out.
`python benchmarks/ingredients.py` measures what each ingredient gives.
"""

import sys

from numpyvit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "--recipe", "cifar10-150k", *sys.argv[1:]]))
