"""The checker catches wrong backwards, passes right ones, and explains misuse."""

import json
import re
import sys
import types

import numpy as np
import pytest
from _pytest._io.saferepr import saferepr
from awkward import AWKWARD
from hypothesis import given
from hypothesis import strategies as st
from mutants import MUTANTS

from numpyvit import UserError, ViT, ViTConfig
from numpyvit.gradcheck import SHARP, check_function, check_layer, check_model, comparison
from numpyvit.layers.attention import Attention
from numpyvit.layers.gelu import GELU
from numpyvit.layers.layernorm import LayerNorm
from numpyvit.layers.linear import Linear
from numpyvit.layers.mlp import MLP
from numpyvit.layers.softmax import softmax_backward, softmax_forward
from numpyvit.testing import normal, seeds

FEW_OR_MANY = pytest.mark.parametrize("count", [5, pytest.param(200, marks=pytest.mark.slow)])
# float64: as on machines that have no wider float
WIDTHS = pytest.mark.parametrize("wide", [np.longdouble, np.float64])
HOW = pytest.mark.parametrize("directions", [0, 3], ids=["jacobian", "directions"])


def test_the_lists_are_long():
    assert len(MUTANTS) >= 83
    assert len(AWKWARD) >= 39


@FEW_OR_MANY
@WIDTHS
@HOW
@pytest.mark.parametrize("name", MUTANTS)
def test_catches(name, directions, wide, count, monkeypatch):
    monkeypatch.setattr(comparison, "WIDE", wide)
    forward, backward, shapes = MUTANTS[name]
    for seed in range(count):
        inputs = [normal(s, seed + i) for i, s in enumerate(shapes)]
        report = check_function(forward, backward, *inputs, seed=seed, directions=directions)
        assert not report, f"\n{report}"
        assert report.faults or any(row.verdict in ("wrong", "zero") for row in report.rows), (
            f"\n{report}"
        )


@FEW_OR_MANY
@WIDTHS
@HOW
@pytest.mark.parametrize("name", AWKWARD)
def test_passes(name, directions, wide, count, monkeypatch):
    monkeypatch.setattr(comparison, "WIDE", wide)
    forward, backward, inputs, zero = AWKWARD[name]
    for seed in range(count):
        report = check_function(
            forward, backward, *inputs(seed), seed=seed, zero=zero, directions=directions
        )
        assert report, f"\n{report}"


@HOW
@pytest.mark.parametrize(
    ("f", "slope", "x"),
    [
        (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, [-1.0, 0, 2]),
        (lambda x: np.maximum(x, 0), lambda x: (x >= 0) * 1.0, [-1.0, 0, 2]),
        (abs, np.sign, [-1.0, 0, 2]),
        (
            lambda x: np.maximum(x, 0) * np.exp(x),
            lambda x: (x > 0) * (1 + x) * np.exp(x),
            [1.0, 0, -2],
        ),
    ],
)
def test_a_kink_is_called_one(f, slope, x, directions):
    pair = (lambda x: (f(x), x)), (lambda dy, x: dy * slope(x))
    report = check_function(*pair, np.array(x), names=["x"], directions=directions)
    assert not report
    assert report.rows[0].verdict == "kink"
    assert report.rows[0].where.startswith("[1]")
    assert "kink: forward has no derivative there" in str(report)


@pytest.mark.parametrize(
    "f", [lambda x: np.sqrt(abs(x)), np.sign, np.cbrt, lambda x: np.round(1e9 * x) / 1e9]
)
def test_a_singular_point_does_not_pass(f):
    report = check_function(lambda x: (f(x), x), lambda dy, x: dy * 1.0, np.array([0.0, 0]))
    assert report.rows[0].verdict in ("unclear", "kink", "wrong")


def test_a_tie_of_two_inputs_is_a_kink_of_both():
    report = check_function(
        lambda a, b: (np.maximum(a, b), a >= b),
        lambda dy, c: (dy * c, dy * ~c),
        np.array([1.0, 2]),
        np.array([1.0, 3]),
    )
    assert [row.verdict for row in report.rows] == ["kink", "kink"]


def test_a_value_outside_both_slopes_is_wrong_at_a_kink_too():
    pair = (lambda x: (np.maximum(x, 0), x)), (lambda dy, x: dy * ((x > 0) + 3.0 * (x == 0)))
    report = check_function(*pair, np.array([-1.0, 0, 2]))
    assert report.rows[0].verdict == "wrong"
    assert report.rows[0].where == "[1] of y[1]"


@given(seeds)
def test_digits_that_float64_loses_are_never_called_wrong(seed):
    """The gradient of a saturated softmax is little more than rounding."""
    report = check_function(
        softmax_forward, softmax_backward, 100 * normal((3, 4), seed), seed=seed, zero=["input 0"]
    )
    assert {row.verdict for row in report.rows} <= {"ok", "unclear"}


@HOW
def test_an_unknown_gradient_does_not_pass(directions):
    def forward(x):  # float32 inside: seven digits at most
        return x + np.tanh(x.astype(np.float32)), x

    # The first backward is right. The second is right for the part that float32 does
    # not hide.
    for seed in range(20):
        for backward in (lambda dy, x: dy * (2 - np.tanh(x) ** 2), lambda dy, x: dy * 1.0):
            assert not check_function(
                forward, backward, normal((3, 3), seed), seed=seed, directions=directions
            )


@HOW
@given(st.floats(0, 6), seeds)
def test_waves_that_fit_the_steps(directions, log_frequency, seed):
    """A backward that knows only the straight line under a ripple fails."""
    w = 10**log_frequency * np.pi

    def forward(x):
        return x + np.sin(w * x) / 1e3, x

    x = normal((2, 3), seed)
    assert not check_function(forward, lambda dy, x: dy * 1.0, x, seed=seed, directions=directions)
    right = check_function(
        forward,
        lambda dy, x: dy * (1 + w / 1e3 * np.cos(w * x)),
        x,
        seed=seed,
        directions=directions,
    )
    assert right, f"\n{right}"


def test_a_steep_neighbour_hides_nothing():
    k, wrong = np.array([1e6, 1, 1, 1]), np.array([1, 1 + 1e-4, 1, 1])
    report = check_function(
        lambda x: (np.sin(k * x), x),
        lambda dy, x: dy * k * np.cos(k * x) * wrong,
        normal((3, 4), 0),
    )
    assert report.rows[0].verdict == "wrong"
    assert report.rows[0].where.endswith(", 1]")


def test_inputs_of_other_units_hide_nothing():
    inputs = 1e6 * normal((4,), 0), 1e-6 * normal((4,), 1)
    report = check_function(
        lambda a, b: (a * b, (a, b)), lambda dy, c: (1.001 * dy * c[1], dy * c[0]), *inputs
    )
    assert [row.verdict for row in report.rows] == ["wrong", "ok"]


def test_nan_in_one_gradient_does_not_blame_the_other():
    for directions in (0, 3):
        report = check_function(
            lambda a, b: (a * b, (a, b)),
            lambda dy, c: (dy * c[1], dy * np.nan),
            normal((3,), 0),
            normal((3,), 1),
            directions=directions,
        )
        assert [row.verdict for row in report.rows[:2]] == ["ok", "wrong"]


def test_norms_that_overflow_pass_nothing():
    for scale in (1e160, 1e-170):
        pair = (
            (lambda x, s=scale: (s * np.sin(x), x)),
            (lambda dy, x, s=scale: -3 * s * dy * np.cos(x)),
        )
        assert not check_function(*pair, np.ones(3), zero=["input 0"])


@pytest.mark.parametrize("directions", [0, 3])
def test_inputs_near_the_edge_of_the_domain_of_forward(directions):
    def forward(x):
        if (x <= 0).any():
            raise ValueError("not defined")
        return np.log(x), x

    assert check_function(
        forward, lambda dy, x: dy / x, np.array([0.02, 1, 2]), directions=directions
    )


def test_a_zero_gradient_fails_unless_declared():
    pair = (lambda x, unused: (2 * x, unused)), (lambda dy, unused: (2 * dy, 0 * unused))
    for directions in (0, 3):
        inputs = normal((3,), 0), normal((2,), 1)
        report = check_function(*pair, *inputs, directions=directions)
        assert [row.verdict for row in report.rows[:2]] == ["ok", "zero"]
        assert not report
        assert check_function(*pair, *inputs, zero=["input 1"], directions=directions)


def test_functions_without_longdouble_are_recognised():
    for name, why in (
        ("that returns float64 for longdouble", "y is float64 for longdouble inputs"),
        ("that hides that it computes in float64", "ignores the further digits"),
        ("a matrix's inverse, which has no longdouble", "failed"),
    ):
        forward, backward, inputs, _ = AWKWARD[name]
        if comparison.WIDE is np.float64:
            why = "none wider"
        assert why in str(check_function(forward, backward, *inputs(0)))


# ---- layers and models


class Broken(Linear):
    def backward(self, dy, cache, grads, need_dx=True):
        dx = super().backward(dy, cache, grads)
        grads[self.b] += dy.sum(0)  # a second time
        return dx


def test_the_table_names_the_weight():
    report = check_layer(Broken(3, 2), normal((2, 3), 0))
    assert [(row.name, row.verdict) for row in report.rows] == [
        ("x", "ok"),
        ("w", "ok"),
        ("b", "wrong"),
    ]
    assert report.error > 0.1
    assert "wrong: backward is not the derivative of forward there" in str(report)


def test_a_report_as_json():
    found = json.loads(check_layer(Broken(3, 2), normal((2, 3), 0)).to_json())
    assert found["ok"] is False
    assert [row["verdict"] for row in found["rows"]] == ["ok", "ok", "wrong"]
    assert found["rows"][2]["analytic"] == pytest.approx(2 * found["rows"][2]["numeric"])
    nan = check_function(lambda x: (np.sin(x), x), lambda dy, x: dy * np.nan, np.ones(2)).to_json()
    assert json.loads(nan, parse_constant=lambda name: pytest.fail(name))["ok"] is False


def test_what_a_failing_assert_shows_says_what_is_wrong():
    """pytest shows at most 240 characters of a repr, on one line."""
    shown = saferepr(check_layer(Broken(3, 2), normal((2, 3), 0)), maxsize=240)
    assert re.fullmatch(
        r"<Report: b \[\d\] of y\[\d, \d\] is wrong \(2 by backward, 1 by differences\)>", shown
    )
    model = ViT(ViTConfig(4, 2, 1, 3, width=4, depth=2, heads=2, mlp_width=4))
    many = check_model(scaled(model), normal((2, 4, 4, 1), 0))
    assert re.fullmatch(r"<Report: x .* is wrong \(.*\.\.\.>", saferepr(many, maxsize=240))
    right = check_function(plain, double, np.ones(3))
    assert repr(right) == "<Report: all gradients are ok>"
    faulty = check_function(lambda x: (x.astype(np.float32), None), double, np.ones(3))
    assert repr(faulty) == "<Report: y is float32 for float64 inputs>"


def test_the_columns_are_explained_where_something_is_wrong():
    wrong = str(check_layer(Broken(3, 2), normal((2, 3), 0)))
    assert "error: analytic - numeric, relative to the whole gradient; estimate: " in wrong
    assert "estimate: " not in str(check_function(plain, double, np.ones(3)))


def scaled(model):
    """Make the gradients before the last norm of the first block wrong."""
    right = model.blocks[0].norm2.backward
    model.blocks[0].norm2.backward = lambda dy, cache, grads: 1.0001 * right(dy, cache, grads)
    return model


def one_wrong_element(model):
    """Make one element of one gradient of the model wrong by a millionth."""
    right = model.blocks[0].mlp.fc2.backward

    def backward(dy, cache, grads):
        mine = grads.zeros_like()
        dx = right(dy, cache, mine)
        mine[model.blocks[0].mlp.fc2.w][3, 1] *= 1 + 1e-6
        grads.flat += mine.flat
        return dx

    model.blocks[0].mlp.fc2.backward = backward
    return model


def test_one_wrong_element_of_a_model_is_found():
    config = ViTConfig(8, 4, 1, 3, width=8, depth=2, heads=2, mlp_width=6)
    images = normal((2, 8, 8, 1), 0)
    assert check_model(ViT(config), images)
    report = check_model(one_wrong_element(ViT(config)), images)
    wrong = [row for row in report.rows[:-1] if row.verdict != "ok"]
    assert [(row.name, row.where, row.verdict) for row in wrong] == [
        ("blocks.0.mlp.fc2.w", "[3, 1]", "wrong")
    ]
    assert wrong[0].analytic == pytest.approx(wrong[0].numeric, rel=1e-5)
    assert wrong[0].analytic != pytest.approx(wrong[0].numeric, rel=1e-8)


def test_a_model_with_one_wrong_layer_says_where_to_begin():
    model = ViT(ViTConfig(4, 2, 1, 3, width=4, depth=2, heads=2, mlp_width=4))
    report = check_model(scaled(model), normal((2, 4, 4, 1), 0))
    assert {row.name for row in report.rows if row.verdict == "wrong"} >= {
        "x",
        "embed.w",
        "all together",
    }
    assert {row.name for row in report.rows if row.verdict == "ok"} >= {
        "head.out.w",
        "blocks.1.mlp.fc1.w",
    }
    assert (
        "begin with blocks.0.attention.proj.b, the last that is wrong, and the operations after it"
        in str(report)
    )


def test_the_bias_of_the_keys_has_no_gradient_and_is_no_error():
    report = check_layer(Attention(6, 2), normal((2, 3, 6), 0), directions=0)
    assert report, f"\n{report}"


# ---- misuse: one line each


def plain(x):
    return 2 * x, None


def double(dy, _):
    return 2 * dy


@pytest.mark.parametrize(
    ("forward", "backward", "inputs", "message"),
    [
        (
            lambda x: 2 * x,
            double,
            [np.ones(3)],
            "forward returned one ndarray, wanted a pair `y, cache`",
        ),
        (lambda x: 2 * x, double, [np.ones(2)], "forward returned one ndarray, wanted a pair"),
        (
            lambda x: (2 * x, 1, 2),
            double,
            [np.ones(3)],
            "forward returned a tuple of 3, wanted a pair",
        ),
        (lambda x: None, double, [np.ones(3)], "forward returned None"),
        (
            lambda x: ([1], None),
            double,
            [np.ones(3)],
            "forward returned one list as y, wanted an array",
        ),
        (
            lambda a, b: (a @ b, None),
            double,
            [np.ones((2, 3)), np.ones((2, 3))],
            r"forward failed on arrays of shapes \(2, 3\), \(2, 3\): matmul",
        ),
        (
            plain,
            lambda dy, _: dy @ np.ones((4, 4)),
            [np.ones((2, 3))],
            r"backward failed on arrays of shapes \(2, 3\): matmul",
        ),
        (
            lambda a, b: (a + b, None),
            lambda dy, _: (dy,),
            [np.ones(3), np.ones(3)],
            "backward returned 1 of 2 gradients, that of b is missing",
        ),
        (
            lambda a, b: (a + b, None),
            lambda dy, _: (dy, dy, dy),
            [np.ones(3), np.ones(3)],
            "backward returned 3 gradients, wanted one for each input: a, b",
        ),
        (
            lambda a, b: (a + b, None),
            lambda dy, _: (dy, None),
            [np.ones(3), np.ones(3)],
            "backward returned None as the gradient of b, wanted an array of the shape of b",
        ),
        (
            plain,
            double,
            [np.arange(3)],
            "a is int64, and only floats have gradients.*labels or indices.*lambda",
        ),
        (plain, double, [np.array([1, np.nan, np.inf])], r"a holds NaN, first at \[1\]"),
        (
            lambda x: (np.log(x), x),
            double,
            [np.array([[1.0, 2], [-1, 3]])],
            r"forward gives NaN, first at \[1, 0\], of finite",
        ),
        (
            lambda x: (1 / x, x),
            double,
            [np.array([1.0, 0])],
            r"forward gives infinity, first at \[1\]",
        ),
        (plain, double, [], "0 inputs and 2 names"),
        (np.ones(3), plain, [np.ones(3)], "forward is one ndarray, wanted two functions"),
        (plain, double, [{"a": 1}], "a is not an array: wanted an array of floats"),
        (plain, double, [[[1.0], [1.0, 2.0]]], "a is not an array: wanted an array of floats"),
        (lambda x: (x > 0, None), double, [np.ones(3)], "forward returned an array of bool as y"),
        (
            lambda x: 1 // 0,
            double,
            [np.ones(3)],
            r"forward failed on arrays of shapes \(3,\): integer division",
        ),
    ],
)
def test_misuse_gets_one_line(forward, backward, inputs, message):
    names = ["a", "b"][: len(inputs)] or ["a", "b"]
    with pytest.raises(UserError, match=message) as error:
        check_function(forward, backward, *inputs, names=names)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero": "x"}, "zero is 'x': wanted a list of names out of x"),
        ({"zero": ["y"]}, "wanted a list of names out of x"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"directions": -1}, "directions is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"names": ["x", "x"]}, "1 inputs and 2 names"),
        ({"names": [3]}, r"the names are \[3\], wanted different strings"),
    ],
)
def test_options_without_a_meaning_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        check_function(plain, double, np.ones(3), **{"names": ["x"], **options})


def test_float32_is_promoted_and_the_report_says_so():
    report = check_function(plain, double, normal((3,), 0, np.float32), names=["x"])
    assert report
    assert "(x is float32, promoted to float64)" in str(report)


def test_a_nan_gradient_is_wrong():
    pair = (lambda x: (np.sin(x), x)), (lambda dy, x: dy * np.where(x > 0, np.cos(x), np.nan))
    report = check_function(*pair, np.array([1.0, -1]))
    assert report.rows[0].verdict == "wrong"
    assert report.rows[0].where.startswith("[1]")


def test_the_first_layer_that_gives_nan_is_named():
    model = ViT(ViTConfig(4, 2, 1, 3, width=4, depth=2, heads=2, mlp_width=4))
    forward = model.blocks[1].mlp.gelu.forward
    model.blocks[1].mlp.gelu.forward = lambda params, x: (forward(params, x)[0] * np.nan, None)
    part = model.blocks[1].mlp.gelu
    before = dict(vars(part))
    with pytest.raises(UserError, match=r"blocks.1.mlp.gelu gives NaN, first at \[0, 0, 0\]"):
        check_model(model, normal((2, 4, 4, 1), 0))
    assert vars(part) == before  # nothing watches the layers any more
    with pytest.raises(UserError, match=r"x holds NaN, first at \[0, 1\]"):
        check_layer(GELU(), np.array([[1, np.nan]]))


class DeviceArray:
    """The part of CuPy's array that a pair needs.

    NumPy's functions refuse it, and get() copies it to the host.
    """

    __module__ = "cupy"
    __array_ufunc__ = None

    def __init__(self, host):
        self.host = np.asarray(host)
        self.shape, self.dtype = self.host.shape, self.host.dtype

    def __mul__(self, other):
        return DeviceArray(self.host * getattr(other, "host", other))

    __rmul__ = __mul__

    def __array__(self, *args, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def get(self):
        return self.host.copy()


def test_device_arrays_are_given_to_the_pair_and_copied_back(monkeypatch):
    cupy = types.ModuleType("cupy")
    cupy.asarray = lambda x: x if isinstance(x, DeviceArray) else DeviceArray(x)
    cupy.shares_memory = lambda a, b: np.shares_memory(a.host, b.host)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    x = DeviceArray(normal((2, 3), 0))
    for slope, directions, ok in ((3.0, 0, True), (3.0, 3, True), (3.1, 0, False), (3.1, 3, False)):

        def backward(dy, x, slope=slope):
            return slope * dy * x * x

        report = check_function(lambda x: (x * x * x, x), backward, x, directions=directions)
        assert bool(report) == ok
        assert "float64, as there is none wider" in str(report)


def test_an_exception_of_forward_that_speaks_of_what_it_gives_is_passed_on():
    """Only values that are not finite make check_layer look for the layer they come from."""

    class Refusing(Linear):
        def forward(self, params, x):
            raise UserError("forward gives up")

    with pytest.raises(UserError, match=r"^forward gives up$"):
        check_layer(Refusing(3, 2), np.ones((2, 3)))


def test_a_gradient_below_rounding_is_said_to_be_that():
    """The slope of the logistic function at 40 is 4e-18, and its value is 1."""
    report = check_function(
        lambda x: (1 / (1 + np.exp(-x)), x),
        lambda dy, x: dy * np.exp(-x) / (1 + np.exp(-x)) ** 2,
        np.array([40.0]),
    )
    assert report.rows[0].verdict == "zero"
    assert "or cannot be told from rounding" in str(report)


def test_a_small_gradient_beside_large_values_is_known_too():
    """In the tail of a GELU, dx is exact and 1e-5 of the gradients of the weights."""
    report = check_layer(MLP(4, 1), normal((1, 1, 4), 17027), 17027, tolerance=SHARP)
    assert report, f"\n{report}"


def test_large_inputs_are_compared_along_directions():
    report = check_layer(LayerNorm(300), normal((2, 300), 0))
    assert report, f"\n{report}"
    assert "3 random directions in 1,200 elements of the inputs and weights" in str(report)
