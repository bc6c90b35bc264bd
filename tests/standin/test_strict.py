"""The stand-in for CuPy refuses what it must refuse, and computes the rest as NumPy does."""

import re

import numpy as np
import pytest

from numpyvit.backend.arrays import get_xp

from . import strict


@pytest.fixture(scope="module")
def cupy():
    with strict.installed() as module:
        yield module


REFUSED = {
    "a NumPy function": lambda xp, x: np.exp(x),
    "a NumPy product": lambda xp, x: np.matmul(x, x),
    "a NumPy reduction": lambda xp, x: np.sum(x),
    "NumPy's concatenate": lambda xp, x: np.concatenate([x, x]),
    "NumPy's where": lambda xp, x: np.where(True, x, x),
    "asarray": lambda xp, x: np.asarray(x),
    "array": lambda xp, x: np.array(x),
    "asarray of an item": lambda xp, x: np.asarray(x[0, 0]),
    "float": lambda xp, x: float(x[0, 0]),
    "float of a sum": lambda xp, x: float(x.sum()),
    "int": lambda xp, x: int(x[0, 0]),
    "if": lambda xp, x: 1 if x[0, 0] else 2,
    "if any": lambda xp, x: 1 if (x > 0).any() else 2,
    "item": lambda xp, x: x.sum().item(),
    "tolist": lambda xp, x: x.tolist(),
    "range": lambda xp, x: range(x.argmax()),
    "formatting": lambda xp, x: f"{x.sum():.2f}",
    "device array @ host array": lambda xp, x: x @ np.ones((3, 3), np.float32),
    "host array @ device array": lambda xp, x: np.ones((3, 3), np.float32) @ x,
    "device array + host array": lambda xp, x: x + np.ones(3, np.float32),
    "host array + device array": lambda xp, x: np.ones(3, np.float32) + x,
    "device array += host array": lambda xp, x: x.__iadd__(np.ones(3, np.float32)),
    "host array += device array": lambda xp, x: np.ones((3, 3), np.float32).__iadd__(x),
    "a host array in a function": lambda xp, x: xp.maximum(x, np.ones(3, np.float32)),
    "a host array in a list": lambda xp, x: xp.concatenate([x, np.ones((3, 3), np.float32)]),
    "a host array as out": lambda xp, x: xp.exp(x, out=np.ones((3, 3), np.float32)),
    "assigning a host array": lambda xp, x: x.__setitem__(0, np.ones(3, np.float32)),
    "assigning to a host array": lambda xp, x: np.ones((3, 3), np.float32).__setitem__(0, x[0]),
    "indexing by a host array": lambda xp, x: x[np.array([0, 1])],
    "indexing by a list": lambda xp, x: x[[0, 1]],
    "indexing by a mask": lambda xp, x: x[x > 0],
    "indexing a host array": lambda xp, x: np.arange(3)[xp.asarray(np.array([0, 1]))],
    "where of a reduction": lambda xp, x: xp.sum(x, where=True),
    "a parameter that only NumPy has": lambda xp, x: x.sum(initial=0),
    "where of a ufunc": lambda xp, x: xp.exp(x, where=x > 0),
    "bincount": lambda xp, x: xp.bincount(xp.arange(3)),
    "a list of arrays": lambda xp, x: xp.asarray([x, x]),
    "adding a float to integers in place": lambda xp, x: xp.arange(3).__iadd__(0.5),
    "copying complex numbers into floats": lambda xp, x: xp.copyto(
        x, xp.zeros((3, 3), np.complex64)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_forbidden_operations_are_refused(cupy, name):
    x = cupy.asarray(np.arange(9, dtype=np.float32).reshape(3, 3))
    with pytest.raises(TypeError):
        REFUSED[name](cupy, x)
    assert x.get()[2, 2] == 8


CAPTURED = {
    "a product": lambda xp, x: x @ x,
    "a product by a function": lambda xp, x: xp.matmul(x, x),
    "an upload": lambda xp, x: xp.asarray(np.ones(3, np.float32)),
    "an upload of a number": lambda xp, x: xp.asarray(0.5),
    "an upload into an array": lambda xp, x: x.set(np.ones((3, 3), np.float32)),
    "a read": lambda xp, x: x.get(),
    "waiting": lambda xp, x: xp.cuda.get_current_stream().synchronize(),
    "sorting": lambda xp, x: xp.sort(x),
    "many arrays": lambda xp, x: xp.stack([x] * 9),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_some_operations_are_refused_during_a_capture_only(cupy, name):
    x = cupy.asarray(np.arange(9, dtype=np.float32).reshape(3, 3))
    CAPTURED[name](cupy, x)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        try:
            with pytest.raises(TypeError, match="while a stream is being captured"):
                CAPTURED[name](cupy, x)
        finally:
            stream.end_capture()


def test_captured_work_is_done_at_each_launch(cupy):
    x = cupy.asarray(np.arange(3, dtype=np.float32))
    index = cupy.asarray(np.array([2, 0]))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        x += 1
        y = cupy.exp(x[1:])
        x[0] = y.sum()
        z = x[index] * 2
        graph = stream.end_capture()
    assert x.get().tolist() == [0, 1, 2]
    wanted = np.arange(3, dtype=np.float32)
    for _ in range(3):
        graph.launch()
        wanted += 1
        wanted[0] = np.exp(wanted[1:]).sum()
        assert np.array_equal(x.get(), wanted)
        assert np.array_equal(z.get(), wanted[[2, 0]] * 2)


def test_a_blocking_stream_cannot_be_captured(cupy):
    with cupy.cuda.Stream() as stream, pytest.raises(TypeError, match="non-blocking"):
        stream.begin_capture()


@pytest.mark.parametrize("name", ["errstate", "ndindex", "not_a_function", "lexsorted"])
def test_it_has_no_function_that_cupy_lacks(cupy, name):
    assert not hasattr(cupy, name)


def test_its_arrays_have_no_method_that_cupy_lacks(cupy):
    with pytest.raises(AttributeError, match="to_device"):
        cupy.zeros(3).to_device("cpu")


def test_it_computes_the_same_as_numpy(cupy):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 3, 5))
    x, y = cupy.asarray(a), cupy.asarray(b)
    out = cupy.empty((2, 4, 5))
    assert np.isnan(out.get()).all()
    assert cupy.matmul(x, y, out=out) is out
    for found, wanted in [
        (out, a @ b),
        (x @ y, a @ b),
        (x.swapaxes(-1, -2)[..., None, 0], a.swapaxes(-1, -2)[..., None, 0]),
        (2 - x, 2 - a),
        (cupy.where(x > 0, x, 0.0), np.where(a > 0, a, 0)),
        (x.sum(0), a.sum(0)),
        (x.max(axis=(0, 1)), a.max((0, 1))),
        (cupy.concatenate([x, x], axis=1), np.concatenate([a, a], 1)),
        (x.reshape(-1, 3).T, a.reshape(-1, 3).T),
        (x[1], a[1]),
        (x[cupy.asarray(np.array([1, 0]))], a[[1, 0]]),
        (cupy.exp(x, dtype=np.float64), np.exp(a)),
    ]:
        assert type(found) is strict.ndarray
        assert get_xp(found) is cupy
        np.testing.assert_array_equal(found.get(), wanted)
    x += y[..., :4].swapaxes(1, 2) * 0 + 1
    np.testing.assert_array_equal(x.get(), a + 1)


def test_single_elements_are_zero_dimensional_arrays(cupy):
    x = cupy.zeros((2, 2), np.float32)
    for found in (x.sum(), x[0, 0], cupy.max(x), x.reshape(-1)[0] + 1):
        assert type(found) is strict.ndarray
        assert found.shape == ()


def test_uploading_copies_and_reading_is_counted(cupy):
    a, before = np.ones(3), strict.reads
    x = cupy.asarray(a)
    a[0] = 5
    assert strict.reads == before
    assert x.get()[0] == 1
    x.set(a)
    assert cupy.asnumpy(x)[0] == 5
    assert strict.reads == before + 2


def test_numbers_too_small_become_zero(cupy):
    x = cupy.asarray(np.array([1e-30, 1], np.float32))
    assert (x * np.float32(1e-10)).get().tolist() == [0, np.float32(1e-10)]
    x *= 1e-10
    assert x.get()[0] == 0
    assert (
        cupy.multiply(cupy.asarray(np.array([1e-30], np.float32)), 1e-10, out=x[:1]).get()[0] == 0
    )


def test_errors_say_what_was_wrong(cupy):
    with pytest.raises(
        TypeError, match=re.escape("CuPy's sum takes (a, axis=, dtype=, out=, keepdims=)")
    ):
        cupy.sum(cupy.zeros(3), where=True)
    with pytest.raises(TypeError, match="silently wait"):
        float(cupy.zeros(()))
