"""What a user sees first: the docstring of the package, help(), repr() and hints."""

import inspect
import pydoc
import textwrap

import numpy as np
import pytest

import numpyvit as nv

PUBLIC = [getattr(nv, name) for name in nv.__all__ if name != "__version__"] + [
    getattr(nv.data, name) for name in nv.data.__all__
]


def test_the_code_in_the_docstring_of_the_package_trains_a_model(tmp_path, monkeypatch, capsys):
    doc = inspect.getdoc(nv)
    code = textwrap.dedent(doc[doc.index("    import numpyvit") : doc.index("nv.presets has")])
    assert "epochs=10" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("epochs=10", "epochs=1"), {})
    assert 0.2 < float(capsys.readouterr().out) < 1
    assert nv.Classifier.load(tmp_path / "digits.npz").config == nv.presets["digits"]


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: getattr(item, "__name__", None))
def test_help_is_readable(item):
    assert "tuple[typing.Any, ...]" not in pydoc.render_doc(item)
    if inspect.isfunction(item) or inspect.isclass(item):
        assert inspect.getdoc(item)


def test_help_of_the_config_names_the_allowed_values():
    doc = inspect.getdoc(nv.ViTConfig)
    for value in ("cls", "mean", "learned", "sinusoidal", "rotary", "none", "tanh", "erf"):
        assert f'"{value}"' in doc


def test_an_unknown_preset_gets_a_hint():
    with pytest.raises(nv.UserError, match="preset 'minst' is unknown: did you mean 'mnist'"):
        nv.presets["minst"]
    assert nv.presets.get("minst") is None
    assert "minst" not in nv.presets


def test_reprs_are_one_short_line():
    train, _ = nv.data.digits()
    assert repr(train) == "<Dataset 'digits' of 1,438 images of 8x8x1, 10 classes>"
    model = nv.ViT(nv.presets["digits"])
    assert repr(model).startswith(f"<ViT of {model.count():,} weights, ViTConfig(image_size=8, ")
    classifier = nv.Classifier.of(model, model.init(), train)
    assert repr(classifier) == f"<Classifier of 10 classes, {model!r}>"
    assert all("\n" not in repr(item) for item in (train, model, classifier))


def test_a_buffer_iterates_over_names():
    params = nv.ViT(nv.presets["digits"]).init()
    assert list(params) == params.names()
    assert [name for name in params if name.startswith("head")] == ["head.out.w", "head.out.b"]
    assert dict(params.items())["head.out.b"] is params["head.out.b"]
    for name in ("foo", 0, None, [], 1.5):
        with pytest.raises(nv.UserError, match=r"no weight is called .*: list\(params\) has"):
            params[name]


@pytest.mark.parametrize(
    "index",
    [
        slice(1000),
        slice(None, None, -7),
        [5, 3, 3],
        np.array([-1, 0]),
        np.arange(1438) % 3 == 0,
        [],
        np.zeros(1438, bool),
    ],
)
def test_a_part_of_a_data_set_is_a_data_set(index):
    train, _ = nv.data.digits()
    part = train[index]
    at = np.array(index, int) if isinstance(index, list) else index
    assert isinstance(part, nv.data.Dataset)
    assert np.array_equal(part.images, train.images[at])
    assert np.array_equal(part.labels, train.labels[at])
    assert len(part) == len(part.labels)
    assert part.classes == train.classes


@pytest.mark.parametrize(
    "index",
    [3, -1, None, 1.5, "3", [1438], [0.5], [[0, 1]], np.ones(7, bool), (0, slice(2)), slice("a")],
)
def test_an_index_that_does_not_fit_is_refused(index):
    train, _ = nv.data.digits()
    with pytest.raises(nv.UserError, match="index"):
        train[index]


def test_a_data_set_does_not_iterate_over_single_images():
    with pytest.raises(nv.UserError, match=r"for one image use data\.images"):
        list(nv.data.digits()[0])
