"""The random streams that are drawn from one seed.

Each use of a seed draws from its own stream, default_rng((seed, USE, ...)). NumPy treats
missing numbers as 0, so a bare seed is the stream (seed, 0); no use is therefore 0.
"""

WEIGHTS = 1  # initial weights
ORDER = 2  # the order of the training images in an epoch
AUGMENT = 3  # augmentation of a batch
DROPOUT = 4  # dropout masks and the choice of patches in a micro-batch
HELD_OUT = 5  # the images held out for validation
