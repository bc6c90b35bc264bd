"""MNIST in a minute or two: 99.17 %, 99.39 % and 99.18 % on the test set, seeds 0, 1 and 2.

    python examples/mnist.py --data-dir DIR [--seed 1]      (DIR/mnist holds it; without, it is fetched, once)

81 to 89 seconds each, evaluation after each epoch included, on two cores of a shared server; benchmarks/logs/mnist
has the logs. `numpyvit train --data mnist` is the same, and takes the same options. train_mnist.py has it as a loop
to read.

Patches of 7x7 (17 tokens with the class token) make a step cheap, Muon makes few of them enough. The digits are
turned by up to 10 degrees, resized by a tenth and moved by a pixel.
"""

import sys

from numpyvit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "--recipe", "mnist", *sys.argv[1:]]))
