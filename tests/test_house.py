"""The rules of the layout hold, and benchmarks/house.py notices when one is broken."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[dict[str, str]], Path]

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def house() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import house

        yield house
        sys.modules.pop("house")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the modules of a small package: write({"layers/gelu.py": "..."}) returns its root."""

    def function(sources: dict[str, str]) -> Path:
        for name, text in sources.items():
            path = tmp_path / "numpyvit" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return function


def test_every_folder_has_its_place_in_the_order(house: Any) -> None:
    assert house.unknown_parts() == []


def test_no_import_points_upwards(house: Any) -> None:
    assert [str(link) for link in house.upward_imports()] == []


def test_there_are_no_import_cycles(house: Any) -> None:
    assert house.import_cycles() == []


def test_a_reader_of_a_layer_needs_at_most_two_other_pages(house: Any) -> None:
    pages = house.needed_pages()
    assert len(pages) >= 15
    assert {page: others for page, others in pages.items() if len(others) > 2} == {}


def test_no_line_is_longer_than_100_columns(house: Any) -> None:
    assert house.long_lines() == []


def test_the_sources_are_found(house: Any) -> None:
    sizes = house.folder_sizes()
    assert {"numpyvit/*.py", "numpyvit/layers/", "tests/", "benchmarks/", "examples/"} <= set(sizes)
    assert all(files > 0 for files, _ in sizes.values())
    assert len(house.package_imports()) > 200


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("layers/gelu.py", "from ..vit import ViT"),
        ("layers/gelu.py", "from .. import vit"),
        ("layers/gelu.py", "import numpyvit.vit"),
        ("layers/gelu.py", "from numpyvit.vit import ViT"),
        ("layers/gelu.py", "def f():\n    from ..vit import ViT"),
        ("layers/gelu.py", "try:\n    from ..vit import ViT\nexcept ImportError:\n    pass"),
        ("layers/__init__.py", "from ..vit import ViT"),
        ("layers/gelu.py", "from .. import ViT"),  # from the package's __init__.py
        ("errors.py", "from .vit import ViT"),
        ("backend/ops.py", "def f():\n    from ..vit import ViT"),
    ],
)
def test_an_upward_import_is_found(house: Any, write: Write, importer: str, statement: str) -> None:
    root = write({"__init__.py": "", "vit.py": "ViT = 1", importer: statement})
    assert [link.importer.split(".")[1] for link in house.upward_imports(root)] == [
        importer.split("/")[0].removesuffix(".py")
    ]


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("__init__.py", "from .vit import ViT"),
        ("vit.py", "from .layers.gelu import Gelu"),
        ("layers/linear.py", "from .gelu import Gelu"),
        ("optim/sgd.py", "from ..layers.gelu import Gelu"),
        ("layers/gelu.py", "import numpy as np"),
        (
            "layers/gelu.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..vit import ViT",
        ),
    ],
)
def test_other_imports_are_allowed(house: Any, write: Write, importer: str, statement: str) -> None:
    root = write({"__init__.py": "", "vit.py": "", "layers/gelu.py": "", importer: statement})
    assert house.upward_imports(root) == []
    assert house.import_cycles(root) == []


def test_a_cycle_is_found(house: Any, write: Write) -> None:
    root = write(
        {
            "layers/a.py": "from .b import f",
            "layers/b.py": "def f():\n    from . import c",
            "layers/c.py": "import numpyvit.layers.a",
            "layers/d.py": "from .a import f",  # leads to the cycle, and is not in it
        }
    )
    cycle = ["numpyvit.layers.a", "numpyvit.layers.b", "numpyvit.layers.c"]
    assert house.import_cycles(root) == [cycle]


def test_only_the_backend_may_import_in_a_circle_inside_a_function(
    house: Any, write: Write
) -> None:
    lazy = "def f():\n    from . import b"
    assert (
        house.import_cycles(write({"backend/a.py": lazy, "backend/b.py": "from . import a"})) == []
    )
    eager = "from . import b"
    assert house.import_cycles(write({"backend/a.py": eager})) == [
        ["numpyvit.backend.a", "numpyvit.backend.b"]
    ]


def test_a_page_needs_the_pages_whose_functions_it_imports(house: Any, write: Write) -> None:
    root = write(
        {
            "layers/a.py": "from .b import Layer, b_forward\nfrom .c import C, c_fast_forward\n"
            "from ..params import Buffer, walk",
            "layers/b.py": "from . import c",
            "layers/c.py": "",
            "params.py": "",
        }
    )
    assert house.needed_pages(root) == {"a": ["b"], "b": ["c"], "c": []}


def test_a_folder_without_a_place_is_found(house: Any, write: Write) -> None:
    assert house.unknown_parts(write({"utils.py": "", "misc/__init__.py": "", "vit.py": ""})) == [
        "misc",
        "utils",
    ]


def test_a_long_line_is_found(house: Any, write: Write) -> None:
    text = "#" * 100 + "\n" + "#" * 101 + "\n" + "#" * 100
    assert house.long_lines(write({"vit.py": text})) == [f"{Path('numpyvit', 'vit.py')}:2"]


def test_main_prints_the_numbers(
    house: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "upward_imports", list)
    monkeypatch.setattr(house, "long_lines", lambda: ["numpyvit/vit.py:3"])
    assert house.main() == 1
    printed = capsys.readouterr().out
    assert "imports that point upwards: 0\n" in printed
    assert "lines of more than 100 columns: 1\n    numpyvit/vit.py:3\n" in printed
    monkeypatch.setattr(house, "long_lines", list)
    assert house.main() == 0
