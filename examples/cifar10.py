"""CIFAR-10 in half an hour: 85.09 % on the test set, by 803 thousand weights and nothing but patches and products.

    python examples/cifar10.py --data-dir DIR               (DIR/cifar10 holds it; without, it is fetched, once)

29 minutes, evaluation after each epoch included, on two cores of a shared server; benchmarks/logs/cifar10 has the log.
`numpyvit train --data cifar10` is the same, and takes the same options. It can be stopped by Ctrl-C at any time, and
goes on with `numpyvit train --resume RUN`. cifar10_best.py takes the same model further.

Width 128, six blocks, patches of 4x4, rotary positions, a mean over the tokens. Three quarters of the patches are left
out until the last four epochs, so that an epoch takes a third of the time; Muon makes more of each step than AdamW.
Images are mirrored and moved by up to four pixels. `python benchmarks/ingredients.py` measures what each ingredient
gives.
"""

import sys

from numpyvit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "--recipe", "cifar10", *sys.argv[1:]]))
